//! The discovery proxy's own look at a request: header block and target.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switch_agent_core::discovery::head;
use switch_agent_core::discovery::target::Target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(end)) = head::find_end(data) {
        assert!(data[..end].ends_with(b"\r\n\r\n"));
        head::check(&data[..end]).ok();
    }
    if let Ok(text) = str::from_utf8(data)
        && let Ok(target) = Target::parse(text, 2048)
    {
        assert!(target.path().starts_with('/'));
        assert!(target.segments().iter().all(|segment| segment != ".." && segment != "."));
        target.below("/api");
    }
});
