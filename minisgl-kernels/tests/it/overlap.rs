//! What keeps the host and the device from waiting for each other: events, read-back, graphs.

use minisgl_kernels::ops::{self, tuning};
use minisgl_kernels::{DType, Error, Event, Readback, Tensor};

use crate::support::{
    Array, Rng, assert_close, floats, for_each_cpu, for_each_device, gpu_or_skip, gpu_turn, host,
    ids,
};

#[test]
fn events_are_passed_in_the_order_of_the_stream() {
    for_each_device(|device, stream| {
        let (start, end) = (Event::timed(device).unwrap(), Event::timed(device).unwrap());
        assert!(start.is_done().unwrap(), "a mark that is nowhere counts as passed");
        start.record(stream).unwrap();
        let x = Tensor::from_slice(device, [1000, 1000], &vec![1.0f32; 1_000_000]).unwrap();
        let mut y = device.zeros(DType::F32, [1000, 1000]).unwrap();
        for _ in 0..10 {
            ops::add(stream, x.view(), y.view_mut()).unwrap();
        }
        end.record(stream).unwrap();
        let other = device.new_stream().unwrap();
        end.hold(&other).unwrap();
        let mut sum = [0.0f32; 1];
        other
            .download(y.view().rows(999..1000).unwrap().columns(999..1000).unwrap(), &mut sum)
            .unwrap();
        assert_eq!(sum, [10.0], "the other stream waited");
        assert!(end.is_done().unwrap());
        end.wait().unwrap();
        assert!(end.seconds_since(&start).unwrap() >= 0.0);
    });
}

#[test]
fn results_are_read_back_while_the_tensors_go_on() {
    for_each_device(|device, stream| {
        let mut back = Readback::new(device, 4096).unwrap();
        let mut tokens = ids(device, &[1, 2, 3]);
        let values =
            Tensor::from_slice(device, [2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        for round in 0..20 {
            stream.upload(&[round, round + 1, round + 2], tokens.view_mut()).unwrap();
            let columns = values.view().columns(1..3).unwrap();
            back.start(stream, &[tokens.view(), columns]).unwrap();
            // Later work does not change what was read.
            stream.upload(&[-1, -1, -1], tokens.view_mut()).unwrap();
            if round % 2 == 0 {
                back.wait().unwrap();
                assert!(back.is_done().unwrap());
            }
            assert_eq!(back.slice::<i32>(0).unwrap(), [round, round + 1, round + 2]);
            assert_eq!(back.slice::<f32>(1).unwrap(), [2.0, 3.0, 5.0, 6.0]);
        }
        assert!(matches!(back.slice::<f32>(0), Err(Error::DType { .. })));
        assert!(matches!(back.slice::<f32>(2), Err(Error::Parameter { .. })));
        let large = device.zeros(DType::F32, [1025]).unwrap();
        assert!(matches!(back.start(stream, &[large.view()]), Err(Error::Length { .. })));
        let other = Tensor::from_slice(&host(), [1], &[1.0f32]).unwrap();
        if crate::support::is_gpu(device) {
            let refused = back.start(stream, &[other.view()]);
            assert!(matches!(refused, Err(Error::OtherDevice { .. })));
            assert!(matches!(
                ops::add(stream, other.view(), floats(device, &[0.0]).view_mut()),
                Err(Error::OtherDevice { .. })
            ));
        }
        // Dropped while copies may be under way.
        back.start(stream, &[tokens.view()]).unwrap();
    });
}

#[test]
fn uploads_of_every_size_arrive_in_order() {
    for_each_device(|device, stream| {
        // Around the pieces that a GPU's uploads are cut into, and past all of them.
        for (rows, columns, gap) in
            [(1, 1, 0), (3, 5, 2), (1, 1 << 20, 0), (5, (1 << 20) + 3, 1), (3000, 1001, 3)]
        {
            let values = Rng::fresh((rows * columns) as u64).floats(rows * columns);
            let mut target = Array::poisoned(device, DType::F32, [rows, columns], gap);
            for factor in [2.0f32, 1.0] {
                let values: Vec<f32> = values.iter().map(|x| x * factor).collect();
                stream.upload(&values, target.view_mut()).unwrap();
            }
            stream.synchronize().unwrap();
            assert!(target.values() == values, "{rows}x{columns}, gaps of {gap}");
        }
    });
}

#[test]
fn a_graph_replays_on_what_is_in_the_memory_by_then() {
    let Some(device) = gpu_or_skip("a graph replays") else { return };
    let _turn = gpu_turn();
    let stream = device.new_stream().unwrap();
    let (m, k, n) = (5, 128, 64);
    let mut rng = Rng::fresh(1);
    let w = Tensor::from_slice(device, [n, k], &rng.floats(n * k)).unwrap();
    let mut x = device.zeros(DType::F32, [m, k]).unwrap();
    let mut y = device.zeros(DType::F32, [m, n]).unwrap();
    let mut id = device.zeros(DType::I32, [m]).unwrap();
    let mut value = device.zeros(DType::F32, [m]).unwrap();
    let mut work = || {
        ops::gemm(&stream, x.view(), w.view(), None, y.view_mut())?;
        let (value, id) = (value.view_mut(), id.view_mut());
        ops::sampling::argmax(&stream, y.view(), 0, value, id)
    };
    work().unwrap();
    let (graph, ()) = stream.capture(work).unwrap();
    for round in 0..3 {
        let input = rng.floats(m * k);
        stream.upload(&input, x.view_mut()).unwrap();
        graph.launch(&stream).unwrap();
        stream.synchronize().unwrap();
        let host = host();
        let x = Tensor::from_slice(&host, [m, k], &input).unwrap();
        let w = Tensor::from_slice(&host, [n, k], &w.to_vec::<f32>().unwrap()).unwrap();
        let mut want = host.zeros(DType::F32, [m, n]).unwrap();
        minisgl_kernels::reference::gemm(x.view(), w.view(), None, want.view_mut()).unwrap();
        let (got, want) = (y.to_vec::<f32>().unwrap(), want.to_vec::<f32>().unwrap());
        assert_close(DType::F32, &got, &want, "replayed gemm");
        let best =
            |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let want: Vec<i32> = got.chunks(n).map(|row| best(row) as i32).collect();
        assert_eq!(id.to_vec::<i32>().unwrap(), want, "round {round}");
    }
    // What a graph cannot hold is refused, and the stream is usable afterwards.
    let mut target = [0; 5];
    let refused = stream.capture(|| stream.download(id.view(), &mut target)).unwrap_err();
    assert!(refused.to_string().contains("captured"), "{refused}");
    let refused = stream.capture(|| stream.upload(&[0; 5], id.view_mut())).unwrap_err();
    assert!(refused.to_string().contains("captured"), "{refused}");
    let fresh = device.new_stream().unwrap();
    let rows = device.zeros(DType::F32, [m, n]).unwrap();
    let refused = fresh
        .capture(|| ops::sampling::argmax(&fresh, rows.view(), 0, value.view_mut(), id.view_mut()));
    assert!(refused.unwrap_err().to_string().contains("run the same ops once before"));
    stream.download(id.view(), &mut target).unwrap();
    drop(graph);
}

#[test]
fn the_cpu_has_no_graphs() {
    for_each_cpu(|_, stream| {
        let refused = stream.capture(|| Ok::<(), Error>(())).unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    });
}

#[test]
fn a_tuned_gemm_is_as_right_as_before_and_is_remembered() {
    for_each_device(|device, stream| {
        for dtype in crate::support::FLOATS {
            let (m, n, k) = (16, 512, 256);
            let mut rng = Rng::fresh(3);
            let x: Vec<f32> = rng.floats(m * k).iter().map(|x| x / 16.0).collect();
            let (w, bias) = (rng.floats(n * k), rng.floats(n));
            for with_bias in [false, true] {
                let shape = tuning::GemmShape { m, n, k, dtype, out_dtype: dtype, bias: with_bias };
                let tuned = tuning::tune_gemm(stream, &shape).unwrap();
                assert_eq!(tuned.is_some(), crate::support::is_gpu(device));
                if let Some(tuned) = tuned {
                    assert!(tuned.seconds > 0.0 && tuned.seconds <= tuned.first_guess_seconds);
                    let text = tuning::save_tuned(device);
                    let count = text.lines().count() - 1;
                    assert!(count >= 1, "{text}");
                    assert_eq!(tuning::load_tuned(device, &text), count);
                    assert_eq!(tuning::load_tuned(device, &format!("other {text}")), 0);
                }
                let run = |device: &_, stream: Option<&_>| {
                    let x = Array::new(device, dtype, [m, k], 0, &x);
                    let w = Array::new(device, dtype, [n, k], 0, &w);
                    let bias = Array::new(device, dtype, [n], 0, &bias);
                    let bias = with_bias.then_some(bias.view());
                    let mut out = Array::poisoned(device, dtype, [m, n], 0);
                    match stream {
                        Some(s) => ops::gemm(s, x.view(), w.view(), bias, out.view_mut()),
                        None => minisgl_kernels::reference::gemm(
                            x.view(),
                            w.view(),
                            bias,
                            out.view_mut(),
                        ),
                    }
                    .unwrap();
                    out
                };
                run(device, Some(stream)).assert_close(&run(&host(), None), "tuned gemm");
            }
        }
        let nothing = tuning::GemmShape {
            m: 0,
            n: 1,
            k: 1,
            dtype: DType::F32,
            out_dtype: DType::F32,
            bias: false,
        };
        assert!(matches!(tuning::tune_gemm(stream, &nothing), Err(Error::Parameter { .. })));
    });
}
