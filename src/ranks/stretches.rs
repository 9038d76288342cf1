//! Ascending stretches of rows.

use std::ops::Range;

/// Stretches one after the other, those that touch as one, without empty ones.
pub(crate) fn joined(stretches: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for stretch in stretches.into_iter().filter(|stretch| !stretch.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == stretch.start => last.end = stretch.end,
            _ => joined.push(stretch),
        }
    }
    joined
}

/// Rows that are in some stretches and not in others; both ascending.
pub fn without(rows: &[Range<usize>], others: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut left, mut next) = (vec![], 0);
    for stretch in rows {
        let mut at = stretch.start;
        while others.get(next).is_some_and(|other| other.end <= at) {
            next += 1;
        }
        for other in others[next..].iter().take_while(|other| other.start < stretch.end) {
            left.push(at..other.start.max(at));
            at = at.max(other.end);
        }
        left.push(at.min(stretch.end)..stretch.end);
    }
    joined(left)
}

/// The positions of ascending stretches of places among some rows.
pub fn positions(rows: &[Range<usize>], places: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let all = places.into_iter().flat_map(|places| {
        let mut first = 0;
        rows.iter().filter_map(move |stretch| {
            let [from, to] = [places.start, places.end]
                .map(|place| place.clamp(first, first + stretch.len()) - first + stretch.start);
            first += stretch.len();
            (from < to).then_some(from..to)
        })
    });
    joined(all)
}

/// The places of ascending stretches of positions among some rows; positions that are not among them are left out.
pub fn places(rows: &[Range<usize>], positions: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut first = 0;
    let all = rows.iter().flat_map(|stretch| {
        let start = first;
        first += stretch.len();
        positions.iter().filter_map(move |of| {
            let (from, to) = (of.start.max(stretch.start), of.end.min(stretch.end));
            (from < to).then(|| start + from - stretch.start..start + to - stretch.start)
        })
    });
    joined(all)
}

/// How many rows they are.
pub fn count(rows: &[Range<usize>]) -> usize {
    rows.iter().map(Range::len).sum()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one stretch is meant")]
mod tests {
    use super::*;

    fn set(rows: &[Range<usize>]) -> Vec<usize> {
        rows.iter().cloned().flatten().collect()
    }

    #[test]
    fn stretches_are_sets_of_rows() {
        let rows = [0..5, 8..20, 25..30];
        for others in
            [vec![], vec![0..40], vec![3..9], vec![0..1, 10..12, 14..15, 29..33], vec![5..8, 20..25]]
        {
            let left = without(&rows, &others);
            let expected: Vec<_> = set(&rows).into_iter().filter(|row| !set(&others).contains(row)).collect();
            assert_eq!(set(&left), expected, "{others:?}");
            let places = places(&rows, &others);
            let found = set(&places).into_iter().map(|place| set(&rows)[place]).collect::<Vec<_>>();
            let expected: Vec<_> = set(&rows).into_iter().filter(|row| set(&others).contains(row)).collect();
            assert_eq!(found, expected, "{others:?}");
            assert_eq!(set(&positions(&rows, places.clone())), expected);
            assert_eq!(count(&places), expected.len());
        }
        assert_eq!(positions(&rows, [4..6, 6..18]), [4..5, 8..20, 25..26]);
    }
}
