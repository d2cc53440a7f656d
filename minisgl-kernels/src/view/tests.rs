//! Views of host memory: what they read and write, and that parts do not overlap.

use std::num::NonZeroUsize;

use crate::{Device, Error, Tensor};

fn device() -> Device {
    Device::cpu(NonZeroUsize::MIN).unwrap()
}

fn numbers(device: &Device, rows: usize, columns: usize) -> Tensor {
    let values: Vec<i32> = (0..(rows * columns) as i32).collect();
    Tensor::from_slice(device, [rows, columns], &values).unwrap()
}

#[test]
fn slices_and_reshapes_read_the_right_elements() {
    let device = device();
    let tensor = numbers(&device, 3, 8);
    let view = tensor.view().columns(2..8).unwrap().reshape([3, 3, 2]).unwrap();
    assert_eq!(view.shape().dims(), [3, 3, 2]);
    assert_eq!(view.strides(), [8, 2, 1]);
    let row = view.rows(1..2).unwrap();
    assert_eq!(row.host_rows::<i32>().row(0), [10, 11, 12, 13, 14, 15]);
}

#[test]
fn split_columns_are_disjoint_and_complete() {
    let device = device();
    let mut tensor = numbers(&device, 2, 5);
    let (left, right) = tensor.view_mut().split_columns(2).unwrap();
    let (mut left, mut right) = (left.host_rows::<i32>(), right.host_rows::<i32>());
    for row in 0..2 {
        // Both parts are held at once.
        let (left, right) = (left.row_mut(row), right.row_mut(row));
        left.fill(-1);
        right.fill(-2);
    }
    assert_eq!(tensor.to_vec::<i32>().unwrap(), [-1, -1, -2, -2, -2, -1, -1, -2, -2, -2]);
    assert!(tensor.view_mut().split_columns(6).is_err());
    let (all, none) = tensor.view_mut().split_columns(5).unwrap();
    assert_eq!((all.num_elements(), none.num_elements()), (10, 0));
}

#[test]
fn a_reborrowed_view_writes_through() {
    let device = device();
    let mut tensor = numbers(&device, 2, 2);
    let mut view = tensor.view_mut();
    view.reborrow().rows(1..2).unwrap().host_slice::<i32>().fill(7);
    assert_eq!(view.as_view().host_slice::<i32>(), [0, 1, 7, 7]);
}

#[test]
fn a_range_outside_names_the_range_and_the_shape() {
    let device = device();
    let tensor = numbers(&device, 2, 3);
    let error = tensor.view().columns(1..4).unwrap_err();
    assert!(matches!(error, Error::Range { axis: 1, start: 1, end: 4, .. }));
    assert_eq!(error.to_string(), "range 1..4 is not inside dimension 1 of shape [2, 3]");
}
