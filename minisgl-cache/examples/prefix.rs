//! Two requests with the same system prompt: the second computes only what differs.

use minisgl_cache::{CacheError, CacheKind, KvConfig, KvManager, PageSize};

fn main() -> Result<(), CacheError> {
    let page_size = PageSize::new(4)?;
    let mut kv = KvManager::new(KvConfig {
        num_pages: 32,
        page_size,
        num_rows: 4,
        max_pages_per_row: 16,
        cache: CacheKind::Radix,
    })?;
    let system_prompt: Vec<u32> = (100..118).collect();
    for question in [[1, 2, 3], [4, 5, 6]] {
        let prompt: Vec<u32> = system_prompt.iter().copied().chain(question).collect();
        let Some(lease) = kv.open(&prompt) else { continue };
        kv.grow(&lease, prompt.len())?;
        let cached = lease.shared_pages() * page_size.get();
        assert!(cached < prompt.len());
        show(format_args!("{} tokens, {cached} of them cached", prompt.len()));
        kv.close(lease, &prompt);
    }
    show(format_args!("{:?}", kv.usage()));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn show(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}
