//! The process that runs a shard, as the library sees it.

use crate::beam::{Event, Shard};
use crate::registry;
use batcher_core::Config;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};

/// Watches an owner.
pub(crate) struct OwnerWatch {
    shard: &'static Shard,
    number: u64,
}

#[rustler::resource_impl(name = "batcher_owner_watch")]
impl Resource for OwnerWatch {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.shard.notify(Event::OwnerDown(self.number));
    }
}

/// The calling process takes the shard over as its owner; answers which processes commit for it already.
pub(crate) fn open(
    shard: &'static Shard,
    env: Env<'_>,
    config: Config,
    hot_window_ms: Option<i64>,
) -> std::io::Result<Vec<LocalPid>> {
    let pid = env.pid();
    let (number, timer) = registry::timer(shard.index);
    let spawn = || {
        let name = format!("batcher_timer_{number}");
        std::thread::Builder::new().name(name).spawn(|| timer.run()).map(drop)
    };
    let watch = |number| {
        let watch = ResourceArc::new(OwnerWatch { shard, number });
        watch.monitor(Some(env), &pid);
        watch
    };
    shard.open(env, pid, config, hot_window_ms, || timer.start(shard, spawn), watch)
}
