//! Who the process plays, from its environment and command line.

use std::env;
use std::path::Path;
use std::slice;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use slice_abi::layout::MAX_VCPUS;
use slice_abi::quota::QuotaPage;

use super::control;

/// Arguments, each leaked once: they live as long as the process.
pub(crate) type Args = std::iter::Copied<slice::Iter<'static, &'static str>>;

pub(crate) fn args() -> Args {
    static ARGS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        env::args_os()
            .skip(1)
            .map(|arg| &*arg.to_string_lossy().into_owned().leak())
            .collect()
    });
    ARGS.iter().copied()
}

pub(crate) fn sliver_name() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        env::var("SLIVER_NAME").unwrap_or_else(|_| {
            let program = env::args_os().next().unwrap_or_default();
            let name = Path::new(&program).file_stem().unwrap_or_default();
            name.to_string_lossy().into_owned()
        })
    });
    &NAME
}

pub(crate) fn slice_name() -> &'static str {
    static NAME: LazyLock<String> =
        LazyLock::new(|| env::var("SLICE_NAME").unwrap_or_else(|_| "local_desktop".to_owned()));
    &NAME
}

pub(crate) fn vcpu_count() -> usize {
    static COUNT: LazyLock<usize> = LazyLock::new(|| {
        let asked = env::var("SLICE_VCPUS").ok().and_then(|n| n.parse().ok());
        let count: usize = asked.unwrap_or_else(|| available_parallelism().map_or(1, Into::into));
        count.clamp(1, MAX_VCPUS)
    });
    *COUNT
}

pub(crate) fn current_vcpu() -> usize {
    control::current()
}

pub(crate) fn quota_page() -> Option<&'static QuotaPage> {
    None
}
