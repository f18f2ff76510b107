//! Processes that commit writes of their own, while somebody waits for these (5.6).

use crate::beam::{self, Shard};
use batcher_shell::{Alone, Event};
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};

/// Watches such a process.
pub(crate) struct Watch {
    shard: &'static Shard,
    alone: Alone,
}

#[rustler::resource_impl(name = "batcher_watch")]
impl Resource for Watch {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.shard.notify(Event::AloneDown(self.alone));
    }
}

impl Watch {
    /// `None`: the process is dead.
    pub(crate) fn new(
        env: Option<Env<'_>>,
        pid: LocalPid,
        index: u64,
        alone: Alone,
    ) -> Option<ResourceArc<Self>> {
        let watch = ResourceArc::new(Watch { shard: beam::find(index)?, alone });
        watch.monitor(env, &pid).map(|_monitor| watch)
    }
}
