//! Locks on files, which keep other programs away from what lies beside them.
//!
//! A lock is the operating system's: it ends with the VM, however that ends, or before when it is given back.

use crate::atoms;
use parking_lot::Mutex;
use rustler::{Atom, Resource};
use std::fs::{File, TryLockError};
use std::io::{Error, ErrorKind};

/// A file that is locked for as long as it is open. `None`: it was given back.
pub(crate) struct Lock(Mutex<Option<File>>);

#[rustler::resource_impl(name = "batcher_lock")]
impl Resource for Lock {}

/// Why a file could not be locked.
pub(crate) enum Refusal {
    InUse,
    Failed(Atom),
}

impl Lock {
    /// Locks a file, which is made where there is none.
    pub(crate) fn take(path: &str) -> Result<Self, Refusal> {
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|error| Refusal::Failed(posix(&error)))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(Mutex::new(Some(file)))),
            Err(TryLockError::WouldBlock) => Err(Refusal::InUse),
            Err(TryLockError::Error(error)) => Err(Refusal::Failed(posix(&error))),
        }
    }

    /// The file stays: were it deleted, another one could be locked beside it.
    pub(crate) fn give_back(&self) {
        drop(self.0.lock().take());
    }
}

/// What Erlang's `file` calls an error.
fn posix(error: &Error) -> Atom {
    match error.kind() {
        ErrorKind::IsADirectory => atoms::eisdir(),
        ErrorKind::NotFound => atoms::enoent(),
        ErrorKind::PermissionDenied => atoms::eacces(),
        ErrorKind::ReadOnlyFilesystem => atoms::erofs(),
        ErrorKind::StorageFull => atoms::enospc(),
        ErrorKind::Unsupported => atoms::enotsup(),
        _ => atoms::eio(),
    }
}
