//! What is counted, and one run with tiny sizes.

use std::num::NonZeroUsize;

use super::*;

#[test]
fn work_is_what_must_be_moved_and_computed() {
    // 64 sequences of 4096 tokens, keys and values of 8 heads of 128 in 2 bytes each.
    let work = Work::decode(64, 4096, [40, 8, 128]);
    assert_eq!(work, Work { bytes: 64 * 4096 * 8 * 128 * 2 * 2, flops: 64 * 4096 * 40 * 128 * 4 });
    let work = Work::prefill(8192, [32, 8, 128]);
    assert_eq!(work.flops, 549_755_813_888);
    assert_eq!(work.bytes, 8192 * 128 * 2 * (32 + 8 + 8 + 32));
    let work = Work::product([3, 5120, 7168]);
    assert_eq!(work, Work { bytes: 73_400_320, flops: 3 * 73_400_320 });
    assert_eq!(Work::moving(10), Work { bytes: 20, flops: 0 });
}

#[test]
fn the_ceiling_that_is_met_first_bounds() {
    let ceilings = Ceilings { copy: 80.0, read: 100.0, product: [1, 1, 1], flops: 1000.0 };
    assert_eq!(ceilings.bytes(), 100.0);
    let work = |bytes, flops| Work { bytes, flops };
    assert_eq!(ceilings.rate(work(50, 0), 1.0), (Bound::Bytes, 50.0, 0.5));
    assert_eq!(ceilings.rate(work(50, 499), 1.0), (Bound::Bytes, 50.0, 0.5));
    assert_eq!(ceilings.rate(work(50, 501), 2.0), (Bound::Flops, 250.5, 0.2505));
}

#[test]
fn copies_are_more_than_a_cache_holds_and_take_turns_evenly() {
    let sizes = Sizes { cold_bytes: 100, ..Sizes::CPU };
    for (bytes, copies) in [(0, 64), (1, 64), (30, 4), (50, 2), (99, 2), (100, 1), (1000, 1)] {
        assert_eq!(sizes.copies(bytes), copies, "{bytes}");
        assert!(Sizes::calls(copies) >= 8);
        assert_eq!(Sizes::calls(copies) % copies, 0);
    }
}

const TINY: Sizes = Sizes {
    round_seconds: 0.0,
    cold_bytes: 2 << 10,
    ceiling_bytes: 32 << 10,
    ceiling_product: [4, 16, 8],
    head_dim: 16,
    num_kv_heads: 2,
    page_size: 4,
    decode_batch: 3,
    decode_context: 10,
    decode_groups: &[1, 3],
    single_context: 7,
    single_q_heads: 4,
    single_calls: 3,
    prefill_tokens: 9,
    prefill_q_heads: 4,
    product_rows: &[1, 5],
    matrices: [("a", 16, 24), ("b", 8, 16), ("c", 16, 32), ("d", 24, 16)],
    num_rows: 3,
    hidden: 16,
    intermediate: 24,
};

fn reports(backends: &Backends) -> Vec<Report> {
    let device = Device::cpu(NonZeroUsize::MIN).unwrap();
    let mut reports = Vec::new();
    run(&device, &TINY, backends, &mut |report| reports.push(report)).unwrap();
    reports
}

#[test]
fn everything_is_timed_and_what_a_device_lacks_is_said() {
    let decode = vec![AttentionBackend::Fi, AttentionBackend::Native];
    let reports = reports(&Backends { prefill: vec![AttentionBackend::Native], decode });
    assert!(
        matches!(&reports[0], Report::Device(device) if device.starts_with("cpu")),
        "{reports:?}"
    );
    let Report::Ceilings(ceilings) = &reports[1] else { panic!("{reports:?}") };
    assert!([ceilings.copy, ceilings.read, ceilings.flops].iter().all(|rate| *rate > 0.0));
    assert_eq!(ceilings.product, TINY.ceiling_product);
    let timed: Vec<&Timed> = reports
        .iter()
        .filter_map(|report| if let Report::Timed(timed) = report { Some(timed) } else { None })
        .collect();
    let what: Vec<&str> = timed.iter().map(|timed| &*timed.what).collect();
    let expected = [
        "native, 1 query heads per KV head",
        "native, 3 query heads per KV head",
        "native",
        "native",
        "a, 1 x 16 x 24",
        "a, 5 x 16 x 24",
        "b, 1 x 8 x 16",
        "b, 5 x 8 x 16",
        "c, 1 x 16 x 32",
        "c, 5 x 16 x 32",
        "d, 1 x 24 x 16",
        "d, 5 x 24 x 16",
        "add_rms_norm, 3 x 16",
        "silu_mul, 3 x 24",
    ];
    assert_eq!(what, expected);
    assert!(
        timed.iter().all(|timed| timed.seconds.is_finite() && timed.work.bytes > 0),
        "{timed:?}"
    );
    let left_out: Vec<&str> = reports
        .iter()
        .filter_map(|report| match report {
            Report::LeftOut { what, reason } if reason.contains("needs a GPU") => Some(&**what),
            _ => None,
        })
        .collect();
    assert_eq!(left_out, ["fi", "fi"]);
}

#[test]
fn only_backends_of_the_kind_of_device_can_be_named() {
    let cpu = Device::cpu(NonZeroUsize::MIN).unwrap();
    assert_eq!(of_decode(Choice::Auto, &cpu).unwrap(), [AttentionBackend::Native]);
    assert_eq!(of_prefill(Choice::Auto, &cpu).unwrap(), [AttentionBackend::Native]);
    let error = of_prefill(Choice::Fi, &cpu).unwrap_err().to_string();
    assert!(error.contains("--attn fi needs a GPU"), "{error}");
    let error = of_decode(Choice::Fa, &cpu).unwrap_err().to_string();
    assert!(error.contains("--attn fa has prefill kernels only"), "{error}");
}
