//! Products of 8-bit floats against the reference.

use minisgl_kernels::ops::fp8::{self, CUDA_ALIGNMENT, Scaled};
use minisgl_kernels::{DType, Device, Error, F8E4M3, Stream, Tensor, reference};

use crate::support::{
    Array, FLOATS, Rng, assert_close_twice_rounded, floats, for_each_cpu, for_each_device, host,
    is_gpu,
};

/// Rows of magnitudes from the smallest to the largest, of zeros, and with what is no number.
fn rows(m: usize, k: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::fresh(seed);
    let magnitudes = [1.0, 1e-3, 300.0, 0.0, 1e30, 1e-38, 1e-44, 7.0];
    let mut x: Vec<f32> =
        (0..m * k).map(|i| rng.float() * magnitudes[i / k % magnitudes.len()]).collect();
    if m > 9 && k > 1 {
        x[8 * k + 1] = f32::NAN;
        x[9 * k] = f32::NEG_INFINITY;
    }
    x
}

fn quantized(device: &Device, stream: Option<&Stream>, x: &Array) -> (Vec<F8E4M3>, Vec<u32>) {
    let shape = x.view().shape();
    // What is not written shows.
    let poison = vec![F8E4M3::from_bits(0x55); shape.dims().iter().product()];
    let mut out = Tensor::from_slice(device, shape, &poison).unwrap();
    let mut scales = floats(device, &vec![-1.0; shape.dims()[0]]);
    match stream {
        Some(stream) => {
            fp8::quantize_rows(stream, x.view(), out.view_mut(), scales.view_mut()).unwrap();
        }
        None => {
            reference::fp8::quantize_rows(x.view(), out.view_mut(), scales.view_mut()).unwrap();
        }
    }
    let bits = |x: f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
    let scales = scales.to_vec::<f32>().unwrap().into_iter().map(bits).collect();
    (out.to_vec().unwrap(), scales)
}

/// Bit for bit, on every device: a weight must not depend on where it was quantized.
#[test]
fn quantize_rows_is_the_reference() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for (m, k) in [(0, 8), (1, 1), (3, 17), (11, 64), (12, 100), (2, 1031), (5, 4096)] {
                let values = rows(m, k, (m * k) as u64);
                for gap in [0, 3, 8] {
                    let x = Array::new(device, dtype, [m, k], gap, &values);
                    let got = quantized(device, Some(stream), &x);
                    let host = host();
                    let x = Array::new(&host, dtype, [m, k], gap, &values);
                    assert_eq!(got, quantized(&host, None, &x), "{m}x{k} {dtype}, gap {gap}");
                }
            }
        }
    });
}

/// The largest element of a row becomes the largest 8-bit float, and the others are near.
#[test]
fn a_quantized_row_is_near_the_row() {
    let x: Vec<f32> = Rng::fresh(5).floats(6 * 256);
    let x = Array::new(&host(), DType::F32, [6, 256], 0, &x);
    let (quantized, scales) = quantized(&host(), None, &x);
    for (i, row) in x.values().chunks(256).enumerate() {
        let scale = f32::from_bits(scales[i]);
        let quantized = &quantized[i * 256..][..256];
        let largest = quantized.iter().map(|x| x.to_f32().abs()).fold(0.0, f32::max);
        assert_eq!(largest, F8E4M3::MAX);
        for (x, quantized) in row.iter().zip(quantized) {
            // Half of a step of 2⁻³, or of the smallest step.
            let allowed = x.abs() / 16.0 + scale / 1024.0;
            assert!((quantized.to_f32() * scale - x).abs() <= allowed * 1.0001, "{x}");
        }
    }
}

/// Matrices for a product, quantized by the reference.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    x: (Vec<F8E4M3>, Vec<f32>),
    w: (Vec<F8E4M3>, Vec<f32>),
    bias: Vec<f32>,
}

impl Case {
    fn new(m: usize, n: usize, k: usize, seed: u64) -> Self {
        let mut rng = Rng::fresh(seed);
        let mut matrix = |rows: usize, scale: f32| {
            let values: Vec<f32> = rng.floats(rows * k).iter().map(|x| x * scale).collect();
            let x = Array::new(&host(), DType::F32, [rows, k], 0, &values);
            let (quantized, scales) = quantized(&host(), None, &x);
            (quantized, scales.into_iter().map(f32::from_bits).collect())
        };
        let x = matrix(m, 1.0 / (k as f32).max(1.0).sqrt());
        let w = matrix(n, 1.0);
        let bias = Rng::fresh(seed + 1).floats(n);
        Self { m, n, k, x, w, bias }
    }

    fn run(
        &self,
        device: &Device,
        stream: Option<&Stream>,
        out_dtype: DType,
        bias_dtype: Option<DType>,
    ) -> Result<Array, Error> {
        let Self { m, n, k, .. } = *self;
        let x = Tensor::from_slice(device, [m, k], &self.x.0)?;
        let w = Tensor::from_slice(device, [n, k], &self.w.0)?;
        let (x_scales, w_scales) = (floats(device, &self.x.1), floats(device, &self.w.1));
        let bias = bias_dtype.map(|dtype| Array::new(device, dtype, [n], 0, &self.bias));
        let bias = bias.as_ref().map(Array::view);
        let mut out = Array::poisoned(device, out_dtype, [m, n], 16);
        let x = Scaled { values: x.view(), scales: x_scales.view() };
        let w = Scaled { values: w.view(), scales: w_scales.view() };
        match stream {
            Some(stream) => fp8::gemm(stream, x, w, bias, out.view_mut())?,
            None => reference::fp8::gemm(x, w, bias, out.view_mut())?,
        }
        Ok(out)
    }
}

#[test]
fn gemm_of_8_bit_floats_is_the_reference() {
    let shapes = [
        (0, 5, 7),
        (0, 16, 32),
        (1, 1, 1),
        (1, 130, 33),
        (2, 3, 0),
        (3, 16, 0),
        (3, 17, 64),
        (1, 256, 512),
        (5, 67, 100),
        (7, 48, 1040),
        (33, 65, 257),
        (70, 144, 4112),
        (131, 32, 5008),
    ];
    for_each_device(|device, stream| {
        for (i, (m, n, k)) in shapes.into_iter().enumerate() {
            let case = Case::new(m, n, k, i as u64);
            for (out_dtype, bias_dtype) in [
                (DType::F32, None),
                (DType::F32, Some(DType::F32)),
                (DType::F32, Some(DType::Bf16)),
                (DType::Bf16, None),
                (DType::Bf16, Some(DType::Bf16)),
            ] {
                let what = format!("fp8 gemm {m}x{n}x{k}, bias {bias_dtype:?}");
                let got = case.run(device, Some(stream), out_dtype, bias_dtype);
                if is_gpu(device) && [n, k].iter().any(|size| !size.is_multiple_of(CUDA_ALIGNMENT))
                {
                    let error = got.map(|out| out.values()).unwrap_err();
                    assert!(error.to_string().contains("a multiple of 16"), "{error}");
                    continue;
                }
                let got = got.unwrap();
                let want = case.run(&host(), None, out_dtype, bias_dtype).unwrap();
                if is_gpu(device) {
                    // Its accumulators are narrower than f32.
                    let (got, want) = (got.values(), want.values());
                    assert_close_twice_rounded(DType::Bf16, &got, &want, &what);
                } else {
                    got.assert_close(&want, &what);
                }
            }
        }
    });
}

/// A row of the product has the same bits in every batch, by any number of threads.
#[test]
fn a_row_of_a_product_does_not_depend_on_its_company() {
    let case = Case::new(70, 130, 3001, 9);
    let mut whole: Vec<(String, Vec<u32>)> = Vec::new();
    for_each_cpu(|device, stream| {
        let out = case.run(device, Some(stream), DType::F32, Some(DType::F32)).unwrap().bits();
        for rows in [0..1, 3..5, 60..70] {
            let (x, scales) = (&case.x.0[rows.start * 3001..rows.end * 3001], &case.x.1);
            let part = Case {
                m: rows.len(),
                x: (x.to_vec(), scales[rows.clone()].to_vec()),
                w: case.w.clone(),
                bias: case.bias.clone(),
                ..case
            };
            let part = part.run(device, Some(stream), DType::F32, Some(DType::F32)).unwrap();
            assert_eq!(part.bits(), out[rows.start * 130..rows.end * 130], "rows {rows:?}");
        }
    });
    for device in crate::support::cpus() {
        let stream = device.new_stream().unwrap();
        let out = case.run(&device, Some(&stream), DType::F32, None).unwrap().bits();
        let Device::Cpu(cpu) = &device else { continue };
        let set = cpu.instruction_set().to_string();
        match whole.iter().find(|(other, _)| *other == set) {
            Some((_, bits)) => assert_eq!(&out, bits, "{set}, {} threads", cpu.num_threads()),
            None => whole.push((set, out)),
        }
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let device = host();
    let stream = device.new_stream().unwrap();
    let x = device.zeros(DType::F32, [2, 32]).unwrap();
    let mut quantized = device.zeros(DType::F8E4M3, [2, 32]).unwrap();
    let mut scales = device.zeros(DType::F32, [2]).unwrap();
    let mut three = device.zeros(DType::F32, [3]).unwrap();
    let error = fp8::quantize_rows(&stream, x.view(), quantized.view_mut(), three.view_mut());
    assert!(error.unwrap_err().to_string().contains("scales"));
    let mut bf16 = device.zeros(DType::Bf16, [2, 32]).unwrap();
    let error = fp8::quantize_rows(&stream, x.view(), bf16.view_mut(), scales.view_mut());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("out") && error.contains("float8_e4m3fn"), "{error}");

    let mut out = device.zeros(DType::Bf16, [2, 2]).unwrap();
    let good = Scaled { values: quantized.view(), scales: scales.view() };
    fp8::gemm(&stream, good, good, None, out.view_mut()).unwrap();
    let wide = Scaled { values: x.view(), ..good };
    let error = fp8::gemm(&stream, good, wide, None, out.view_mut()).unwrap_err().to_string();
    assert!(error.contains("w has") && error.contains("float8_e4m3fn"), "{error}");
    let few = Scaled { scales: three.view(), ..good };
    let error = fp8::gemm(&stream, few, good, None, out.view_mut()).unwrap_err().to_string();
    assert!(error.contains("x scales"), "{error}");
    let error = fp8::gemm(&stream, good, good, Some(scales.view()), out.view_mut());
    assert!(error.unwrap_err().to_string().contains("bias"));
    fp8::check_device(&device).unwrap();
}
