//! The process that runs a shard, as the library sees it.

use crate::beam::{Event, Shard};
use batcher_core::Config;
use batcher_shell::sync::Sender;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};

/// Watches an owner.
pub(crate) struct OwnerWatch {
    number: u64,
    events: Sender<Event>,
}

#[rustler::resource_impl(name = "batcher_owner_watch")]
impl Resource for OwnerWatch {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        // The receiver lives as long as the VM.
        let _ = self.events.send(Event::OwnerDown(self.number));
    }
}

/// The calling process takes the shard over as its owner; answers who commits for it already.
pub(crate) fn open(
    shard: &'static Shard,
    env: Env<'_>,
    config: Config,
    hot_window_ms: Option<i64>,
) -> std::io::Result<Vec<LocalPid>> {
    let pid = env.pid();
    let spawn = || {
        let name = format!("batcher_{}", shard.index);
        std::thread::Builder::new().name(name).spawn(|| shard.run()).map(drop)
    };
    let watch = |number, events| {
        let watch = ResourceArc::new(OwnerWatch { number, events });
        watch.monitor(Some(env), &pid);
        watch
    };
    shard.open(env, pid, config, hot_window_ms, spawn, watch)
}
