//! The schedulers of the VM, numbered in the order in which their processes came here first.

use crate::arena;
use std::cell::Cell;
use std::sync::atomic::{AtomicU16, Ordering};

/// The scheduler on which a process calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home(u16);

static SCHEDULERS: AtomicU16 = AtomicU16::new(0);

thread_local! {
    static HERE: Cell<Option<Home>> = const { Cell::new(None) };
}

impl Home {
    /// No scheduler, or one where nobody lives: a dirty one.
    pub(crate) const NOWHERE: Home = Home(u16::MAX);

    /// That of the calling process.
    pub(crate) fn here() -> Home {
        HERE.get().unwrap_or_else(|| {
            let home = match arena::on_scheduler() {
                true => Home(SCHEDULERS.fetch_add(1, Ordering::Relaxed)),
                false => Home::NOWHERE,
            };
            HERE.set(Some(home));
            home
        })
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}
