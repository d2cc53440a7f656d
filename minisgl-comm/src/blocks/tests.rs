//! Cuts and shares cover a matrix exactly once.

use std::collections::BTreeSet;

use super::*;

/// The elements of `block`, its first one at `rows.start`, `columns.start`.
fn cells(block: &Block) -> Vec<(usize, usize)> {
    let columns = &block.columns;
    block.rows.clone().flat_map(|row| columns.clone().map(move |column| (row, column))).collect()
}

#[test]
fn any_shape_is_a_matrix_of_its_outermost_dimension() {
    let check = |shape: Shape, dims: [usize; 2]| assert_eq!(Block::whole(shape).dims(), dims);
    check([].into(), [1, 1]);
    check([7].into(), [1, 7]);
    check([3, 5].into(), [3, 5]);
    check([3, 5, 2, 2].into(), [3, 20]);
    check([0].into(), [1, 0]);
    check([4, 0, 3].into(), [4, 0]);
}

#[test]
fn cuts_cover_a_matrix_once_and_fit_the_capacity() {
    for (rows, columns) in [(1, 1), (1, 29), (29, 1), (6, 7), (13, 3), (3, 13)] {
        let whole = Block::whole([rows, columns].into());
        for capacity in 1..=rows * columns + 1 {
            let blocks: Vec<_> = whole.clone().cut(capacity).collect();
            assert!(blocks.iter().all(|block| (1..=capacity).contains(&block.num_elements())));
            let cut: Vec<_> = blocks.iter().flat_map(cells).collect();
            let distinct: BTreeSet<_> = cut.iter().copied().collect();
            assert_eq!(cut.len(), distinct.len(), "overlap: {rows}x{columns} by {capacity}");
            assert_eq!(cut.len(), rows * columns, "gap: {rows}x{columns} by {capacity}");
        }
    }
}

#[test]
fn an_empty_matrix_has_empty_blocks_but_some() {
    for shape in [[0, 0], [0, 5], [5, 0]] {
        let blocks: Vec<_> = Block::whole(shape.into()).cut(4).collect();
        assert!(!blocks.is_empty() && blocks.iter().all(|block| block.num_elements() == 0));
    }
}

#[test]
fn shares_cover_a_block_once() {
    for (rows, columns) in [(0, 0), (1, 1), (1, 29), (2, 3), (7, 5), (8, 1), (17, 2)] {
        let block = Block { rows: 3..3 + rows, columns: 2..2 + columns };
        for world_size in [1, 2, 3, 4, 8] {
            let shares = (0..world_size).map(|rank| block.share(rank, world_size));
            let shared: Vec<_> = shares.flat_map(|share| cells(&share)).collect();
            let distinct: BTreeSet<_> = shared.iter().copied().collect();
            let all: BTreeSet<_> =
                cells(&Block { rows: 0..rows, columns: 0..columns }).into_iter().collect();
            assert_eq!(shared.len(), distinct.len(), "overlap: {block:?} over {world_size}");
            assert_eq!(distinct, all, "{block:?} over {world_size}");
        }
    }
}
