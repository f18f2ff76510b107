//! Locks on files, which keep other VMs away from what lies beside them.
//!
//! Invariant: a file is locked as long as it is among those that are held here. A lock is the operating system's: it ends
//! with the VM, however that ends. If the library is loaded anew, it forgets the locks, which the VM keeps.

use crate::atoms;
use once_cell::sync::Lazy;
use parking_lot::Mutex;
use rustler::Atom;
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{Error, ErrorKind};

/// By their paths, the files that are locked.
static HELD: Lazy<Mutex<HashMap<String, File>>> = Lazy::new(Default::default);

/// Locks a file, which is made where there is none: `:ok`, also if it is held here already, or why not.
pub(crate) fn take(path: String) -> Result<(), Atom> {
    let mut held = HELD.lock();
    if held.contains_key(&path) {
        return Ok(());
    }
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| posix(&error))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => atoms::in_use(),
        TryLockError::Error(error) => posix(&error),
    })?;
    held.insert(path, file);
    Ok(())
}

/// Gives back the lock of a file, if it is held here. The file stays: were it deleted, another one could be locked
/// beside it.
pub(crate) fn give_back(path: &str) {
    drop(HELD.lock().remove(path));
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
