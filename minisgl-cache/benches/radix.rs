//! The radix cache alone: what a prefix costs to find, to keep and to drop, by tree size.
//! For tracking regressions; a server does one match and one or two inserts per request.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use minisgl_cache::page::PageId;
use minisgl_cache::prefix::PrefixCache;
use minisgl_cache::{PageSize, radix::RadixCache};

const PROMPT_TOKENS: usize = 4096;
const SYSTEM_TOKENS: usize = 1024;

/// Prompt `index`: a shared system prompt, then tokens of its own.
fn prompt(index: u32) -> Vec<u32> {
    let own = (SYSTEM_TOKENS as u32..PROMPT_TOKENS as u32).map(|at| (index << 8) | (at % 97));
    (0..SYSTEM_TOKENS as u32).chain(own).collect()
}

fn tree(total_tokens: usize, page_size: usize) -> RadixCache {
    let mut cache = RadixCache::new(PageSize::new(page_size).expect("a page size"));
    let mut next_page = 0;
    for index in 0..(total_tokens / PROMPT_TOKENS).max(1) as u32 {
        let pages: Vec<PageId> =
            (0..(PROMPT_TOKENS / page_size) as u32).map(|page| PageId(next_page + page)).collect();
        next_page += pages.len() as u32;
        cache.insert(&prompt(index), &pages);
    }
    cache
}

fn radix(c: &mut Criterion) {
    let mut group = c.benchmark_group("radix");
    group.sample_size(20);
    for total_tokens in [1 << 12, 1 << 16, 1 << 20] {
        for page_size in [1, 16] {
            let id = |what| BenchmarkId::new(what, format!("{total_tokens}tok/page{page_size}"));
            let mut cache = tree(total_tokens, page_size);
            let last = prompt((total_tokens / PROMPT_TOKENS) as u32 - 1);
            group.throughput(Throughput::Elements(PROMPT_TOKENS as u64));
            group.bench_function(id("match"), |b| b.iter(|| cache.match_prefix(&last)));
            // Steady state: each new prompt pushes out the least recently used one.
            let own_pages = (PROMPT_TOKENS - SYSTEM_TOKENS) / page_size;
            let new: Vec<Vec<u32>> = (1 << 20..(1 << 20) + 512).map(prompt).collect();
            let mut new = new.iter().cycle();
            let mut pages: Vec<PageId> =
                (0..SYSTEM_TOKENS / page_size).map(|_| PageId(0)).collect();
            pages.extend((0..own_pages as u32).map(|page| PageId(1 << 24 | page)));
            group.bench_function(id("insert_evict"), |b| {
                b.iter(|| {
                    cache.insert(new.next().expect("a cycle"), &pages);
                    let evicted = cache.evict(own_pages);
                    pages.truncate(SYSTEM_TOKENS / page_size);
                    pages.extend(evicted);
                });
            });
        }
    }
    group.bench_function("evict_all/1Mtok/page1", |b| {
        b.iter_batched(
            || tree(1 << 20, 1),
            |mut cache| cache.evict(usize::MAX).len(),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, radix);
criterion_main!(benches);
