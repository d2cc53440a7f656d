//! Moving rows and ids by index against the reference: bit for bit, since nothing is computed.

use minisgl_kernels::{ops, reference};

use crate::support::{Array, FLOATS, Rng, STORED, for_each_device, host, ids};

const ROWS: [usize; 5] = [0, 1, 3, 17, 300];
const WIDTHS: [usize; 4] = [1, 17, 64, 515];

#[test]
fn embedding_of_a_shard_is_the_reference() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for (t, h) in ROWS.into_iter().flat_map(|t| WIDTHS.map(|h| (t, h))) {
                let mut rng = Rng::fresh((t * 1000 + h) as u64);
                let (first_id, v_local) = (100, 37);
                let table = rng.floats(v_local * h);
                // Below, inside and above the shard, and the extremes.
                let mut tokens: Vec<i32> = (0..t).map(|_| 80 + rng.below(80) as i32).collect();
                tokens.iter_mut().zip([i32::MIN, i32::MAX, -1]).for_each(|(id, x)| *id = x);
                let run = |device: &_, stream: Option<&_>| {
                    let table = Array::new(device, dtype, [v_local, h], 3, &table);
                    let tokens = ids(device, &tokens);
                    let mut out = Array::poisoned(device, dtype, [t, h], 2);
                    let (ids, table) = (tokens.view(), table.view());
                    match stream {
                        Some(s) => ops::embedding(s, ids, table, first_id, out.view_mut()),
                        None => reference::embedding(ids, table, first_id, out.view_mut()),
                    }
                    .unwrap();
                    out.bits()
                };
                assert_eq!(run(device, Some(stream)), run(&host(), None), "{t}x{h}");
            }
        }
    });
}

#[test]
fn gather_rows_is_the_reference() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for (n, h) in ROWS.into_iter().flat_map(|n| WIDTHS.map(|h| (n, h))) {
                let mut rng = Rng::fresh((n * 1000 + h) as u64);
                let x = rng.floats(23 * h);
                let indices: Vec<i32> = (0..n).map(|_| rng.below(23) as i32).collect();
                let run = |device: &_, stream: Option<&_>| {
                    let x = Array::new(device, dtype, [23, h], 3, &x);
                    let indices = ids(device, &indices);
                    let mut out = Array::poisoned(device, dtype, [n, h], 2);
                    match stream {
                        Some(s) => ops::gather_rows(s, x.view(), indices.view(), out.view_mut()),
                        None => reference::gather_rows(x.view(), indices.view(), out.view_mut()),
                    }
                    .unwrap();
                    out.bits()
                };
                assert_eq!(run(device, Some(stream)), run(&host(), None), "{n}x{h}");
            }
        }
    });
}

#[test]
fn store_kv_is_the_reference_and_leaves_other_slots_alone() {
    for_each_device(|device, stream| {
        for [dtype, kv_dtype] in STORED {
            for (t, d) in ROWS.into_iter().flat_map(|t| WIDTHS.map(|d| (t, d))) {
                let mut rng = Rng::fresh((t * 1000 + d) as u64);
                let (num_slots, num_kv_heads) = (t + 5, 2);
                // With some beyond what 8 bits hold.
                let mut floats = || -> Vec<f32> {
                    rng.floats(t * 2 * d).iter().map(|x| 500.0 * x * x * x).collect()
                };
                let (k, v) = (floats(), floats());
                let slots = &rng.permutation(num_slots)[..t];
                let run = |device: &_, stream: Option<&_>| {
                    let k = Array::new(device, dtype, [t, num_kv_heads, d], 3, &k);
                    let v = Array::new(device, dtype, [t, num_kv_heads, d], 3, &v);
                    let pool = [num_slots, num_kv_heads, d];
                    let mut k_pool = Array::poisoned(device, kv_dtype, pool, 0);
                    let mut v_pool = Array::poisoned(device, kv_dtype, pool, 1);
                    let (k, v, slots) = (k.view(), v.view(), ids(device, slots));
                    let pools = (k_pool.view_mut(), v_pool.view_mut());
                    match stream {
                        Some(s) => ops::store_kv(s, k, v, slots.view(), pools.0, pools.1),
                        None => reference::store_kv(k, v, slots.view(), pools.0, pools.1),
                    }
                    .unwrap();
                    (k_pool.bits(), v_pool.bits())
                };
                assert_eq!(run(device, Some(stream)), run(&host(), None), "{t}x{d}");
            }
        }
    });
}

#[test]
fn ids_gathered_from_where_they_were_scattered_are_the_same() {
    for_each_device(|device, stream| {
        for n in ROWS {
            let mut rng = Rng::fresh(n as u64);
            let indices = &rng.permutation(n + 4)[..n];
            let values: Vec<i32> = (0..n).map(|_| rng.next() as i32).collect();
            let run = |device: &_, stream: Option<&_>| {
                let (values, indices) = (ids(device, &values), ids(device, indices));
                let (values, indices) = (values.view(), indices.view());
                let mut table = ids(device, &vec![-7; n + 4]);
                let mut out = ids(device, &vec![-8; n]);
                match stream {
                    Some(s) => {
                        ops::scatter_ids(s, values, indices, table.view_mut()).unwrap();
                        ops::gather_ids(s, table.view(), indices, out.view_mut()).unwrap();
                    }
                    None => {
                        reference::scatter_ids(values, indices, table.view_mut()).unwrap();
                        reference::gather_ids(table.view(), indices, out.view_mut()).unwrap();
                    }
                }
                (table.to_vec::<i32>().unwrap(), out.to_vec::<i32>().unwrap())
            };
            let got = run(device, Some(stream));
            assert_eq!(got.1, values);
            assert_eq!(got, run(&host(), None));
        }
    });
}
