//! The process that runs a shard, as the library sees it.

use crate::beam::{self, Shard};
use batcher_core::Config;
use batcher_shell::Event;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};

/// The process that runs a shard, watched.
pub(crate) struct Owner {
    shard: &'static Shard,
    number: u64,
    pub(crate) pid: LocalPid,
}

#[rustler::resource_impl(name = "batcher_owner")]
impl Resource for Owner {
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
) -> std::io::Result<Vec<LocalPid>> {
    let pid = env.pid();
    let (number, timer) = beam::timer(shard.index);
    let spawn = || {
        let name = format!("batcher_timer_{number}");
        std::thread::Builder::new().name(name).spawn(|| timer.run()).map(drop)
    };
    let owner = |number| {
        let owner = ResourceArc::new(Owner { shard, number, pid });
        owner.monitor(Some(env), &pid);
        owner
    };
    let start = || timer.start(shard, spawn);
    let committers = shard.open(env, config, start, owner)?;
    Ok(committers.iter().map(|committer| committer.pid).collect())
}
