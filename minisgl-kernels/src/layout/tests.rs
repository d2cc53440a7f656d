//! Slices and reshapes against what they mean, element by element.

use super::{Layout, RowLayout};
use crate::Shape;

/// The offsets a layout names, in row-major order.
fn offsets(layout: &Layout, base: usize) -> Vec<usize> {
    let mut all = vec![base];
    for (&dim, &stride) in layout.shape().dims().iter().zip(layout.strides()) {
        all = all.iter().flat_map(|at| (0..dim).map(move |i| at + i * stride)).collect();
    }
    all
}

fn contiguous<const N: usize>(dims: [usize; N]) -> Layout {
    Layout::contiguous(Shape::from(dims))
}

#[test]
fn a_contiguous_layout_names_every_element_once_in_order() {
    let layout = contiguous([2, 3, 1, 4]);
    assert_eq!(offsets(&layout, 0), (0..24).collect::<Vec<_>>());
    assert_eq!(layout.num_elements(), 24);
    assert_eq!(contiguous([]).num_elements(), 1);
    assert_eq!(contiguous([3, 0]).num_elements(), 0);
}

#[test]
fn slices_keep_the_elements_they_name() {
    let layout = contiguous([4, 6]);
    let (rows, at) = layout.slice(0, 1..3).unwrap();
    assert_eq!(offsets(&rows, at), (6..18).collect::<Vec<_>>());
    let (columns, at) = layout.slice_columns(4..6).unwrap();
    assert_eq!(offsets(&columns, at), [4, 5, 10, 11, 16, 17, 22, 23]);
    let (empty, at) = layout.slice(0, 4..4).unwrap();
    assert_eq!((empty.num_elements(), at), (0, 0));
    assert!(layout.slice(0, 2..5).is_err());
    #[expect(clippy::reversed_empty_ranges, reason = "a range that must be refused")]
    let reversed = layout.slice(1, 3..2);
    assert!(reversed.is_err());
    assert!(layout.slice(2, 0..0).is_err());
    assert!(contiguous([]).slice_columns(0..0).is_err());
}

#[test]
fn reshapes_keep_all_elements_in_order() {
    // A fused projection: 5 rows of 24 columns, of which 8..20 are seen.
    let (columns, at) = contiguous([5, 24]).slice_columns(8..20).unwrap();
    let shapes: [(Layout, Shape); 9] = [
        (contiguous([6, 4]), [24].into()),
        (contiguous([6, 4]), [2, 3, 2, 2].into()),
        (contiguous([2, 3, 4]), [6, 1, 4].into()),
        (contiguous([1, 1]), [].into()),
        (contiguous([0, 3]), [7, 0].into()),
        (columns, [5, 3, 4].into()),
        (columns, [5, 1, 12].into()),
        (columns, [1, 5, 12].into()),
        (columns, [5, 12, 1].into()),
    ];
    for (layout, shape) in shapes {
        let reshaped = layout.reshape(shape).unwrap();
        assert_eq!(reshaped.shape(), shape);
        assert_eq!(offsets(&reshaped, at), offsets(&layout, at), "{layout:?} to {shape}");
    }
}

#[test]
fn reshapes_that_strides_cannot_express_are_refused() {
    let (columns, _) = contiguous([6, 24]).slice_columns(8..20).unwrap();
    let (column, _) = contiguous([6, 24]).slice_columns(3..4).unwrap();
    let refused: [(Layout, Shape); 6] = [
        (columns, [72].into()),
        (columns, [8, 9].into()),
        (columns, [3, 24].into()),
        (column, [6].into()),
        (contiguous([6]), [7].into()),
        (contiguous([0]), [1].into()),
    ];
    for (layout, shape) in refused {
        assert!(layout.reshape(shape).is_err(), "{layout:?} to {shape}");
    }
    // Rows can still be grouped while each stays whole.
    assert!(columns.reshape(Shape::from([2, 3, 12])).is_ok());
}

#[test]
fn rows_are_dense_inside() {
    let rows = |num_rows, row_len, row_stride| Some(RowLayout { num_rows, row_len, row_stride });
    assert_eq!(contiguous([4, 6]).as_rows(), rows(4, 6, 6));
    assert_eq!(contiguous([2, 3, 4]).as_rows(), rows(2, 12, 12));
    assert_eq!(contiguous([7]).as_rows(), rows(1, 7, 7));
    assert_eq!(contiguous([]).as_rows(), rows(1, 1, 1));
    let (columns, _) = contiguous([4, 6]).slice_columns(1..3).unwrap();
    assert_eq!(columns.as_rows(), rows(4, 2, 6));
    let (holes, _) = contiguous([4, 3, 6]).slice_columns(1..3).unwrap();
    assert_eq!(holes.as_rows(), None);
}
