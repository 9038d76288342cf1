//! Some queries and some keys of a pattern, under numbers of their own.

use super::{Extent, Identity, Pattern, Site, Span, Varies, spans};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// The pairs of some queries and some keys of another pattern: S_i = { j : `pattern` keeps (queries\[i\], keys\[j\]) }, where
/// queries\[i\] is the i-th of the chosen ones. Causal, windows and all that goes by positions mean those of the whole.
///
/// ```text
/// causal, 8 x 8    queries 2..4 and 6..8, keys 0..4
/// █·······
/// ██······
/// ███·····         ███·
/// ████····         ████
/// █████···
/// ██████··
/// ███████·         ████
/// ████████         ████
/// ```
///
/// It is what one of several devices computes that hold a sequence together: see [`ranks`](crate::ranks). Its lengths are those of
/// the choice, its batch items and heads those of the whole. It has no [`pieces`](Pattern::pieces): scattered patterns are
/// visited in natural order.
///
/// ```
/// use wgpu_attention::{Causal, Extent, mask::{BlockGrid, BlockMask}, pattern::Excerpt};
/// let whole = Extent { batch: 1, heads: 1, q_len: 8, kv_len: 8 };
/// let some = Excerpt::new(&Causal, whole, &[2..4, 6..8], &[0..4])?;
/// assert_eq!(BlockMask::new(&some, BlockGrid::new(4, 4))?.pairs(0, 0), "███·\n████\n████\n████\n");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Excerpt {
    // Boxed, as `==` of an `Arc<dyn Pattern>` cannot be derived.
    pattern: Arc<Box<dyn Pattern>>,
    whole: Extent,
    queries: Choice,
    keys: Choice,
}

/// Ascending stretches of positions, and the place at which each starts, with a closing entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Choice {
    stretches: Arc<[Range<usize>]>,
    starts: Arc<[usize]>,
}

impl Excerpt {
    /// These queries and these keys of a pattern over the lengths `whole`, as ascending stretches of positions.
    ///
    /// # Errors
    /// [`Error::Argument`] for stretches that are not ascending and disjoint within the lengths, and what
    /// [`Pattern::check`] finds.
    pub fn new(
        pattern: &dyn Pattern,
        whole: Extent,
        queries: &[Range<usize>],
        keys: &[Range<usize>],
    ) -> Result<Self> {
        pattern.check(&whole)?;
        Ok(Self {
            queries: Choice::new("queries", queries, whole.q_len)?,
            keys: Choice::new("keys", keys, whole.kv_len)?,
            pattern: pattern.identity().written(&whole).into(),
            whole,
        })
    }

    /// The lengths of the choice.
    pub fn extent(&self) -> Extent {
        Extent { q_len: self.queries.len(), kv_len: self.keys.len(), ..self.whole }
    }

    fn site(&self, site: &Site) -> Site {
        Site { extent: self.whole, ..*site }
    }
}

impl Choice {
    fn new(name: &'static str, given: &[Range<usize>], len: usize) -> Result<Self> {
        let mut stretches: Vec<Range<usize>> = Vec::new();
        for stretch in given.iter().filter(|stretch| !stretch.is_empty()) {
            match stretches.last_mut() {
                _ if stretch.end > len => {
                    return Err(Error::argument(
                        name,
                        format!("stretches within 0..{len}"),
                        format!("{stretch:?}"),
                    ));
                }
                Some(last) if stretch.start < last.end => {
                    let got = format!("{stretch:?} after {last:?}");
                    return Err(Error::argument(name, "ascending, disjoint stretches", got));
                }
                Some(last) if stretch.start == last.end => last.end = stretch.end,
                _ => stretches.push(stretch.clone()),
            }
        }
        let mut starts = vec![0];
        for stretch in &stretches {
            starts.push(starts[starts.len() - 1] + stretch.len());
        }
        Ok(Self { stretches: stretches.into(), starts: starts.into() })
    }

    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The position at a place below [`len`](Self::len).
    fn position(&self, place: usize) -> usize {
        let stretch = self.starts.partition_point(|&start| start <= place) - 1;
        self.stretches[stretch].start + place - self.starts[stretch]
    }

    /// Places one after the other as stretches of positions, each with its first place.
    fn positions(&self, places: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let first = self.starts.partition_point(|&start| start <= places.start) - 1;
        self.starts.iter().zip(&*self.stretches).skip(first).filter_map(move |(&start, stretch)| {
            let from = places.start.max(start);
            let to = places.end.min(start + stretch.len());
            (from < to).then(|| (from, stretch.start + from - start..stretch.start + to - start))
        })
    }

    /// The places of ascending stretches of positions.
    fn places(&self, spans: &[Span]) -> Vec<Span> {
        let (mut places, mut next) = (Vec::new(), 0);
        for Span { keys, all } in spans {
            while self.stretches.get(next).is_some_and(|stretch| stretch.end <= keys.start) {
                next += 1;
            }
            for (stretch, start) in self.stretches[next..].iter().zip(&self.starts[next..]) {
                if stretch.start >= keys.end {
                    break;
                }
                let place = |position: usize| start + position - stretch.start;
                let keys = place(keys.start.max(stretch.start))..place(keys.end.min(stretch.end));
                if !keys.is_empty() {
                    places.push(Span { keys, all: *all });
                }
            }
        }
        places
    }
}

impl Pattern for Excerpt {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.pattern.keep(&self.site(site), self.queries.position(i), self.keys.position(j))
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let (whole, query) = (self.site(site), self.queries.position(i));
        let places = j..self.keys.len().min(j + 32);
        if places.is_empty() {
            return 0;
        }
        self.keys.positions(places).fold(0, |word, (place, keys)| {
            let kept = self.pattern.keep_word(&whole, query, keys.start) & spans::ones(keys.len());
            word | kept << (place - j)
        })
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let whole = self.site(site);
        let lists = self.queries.positions(rows).map(|(_, queries)| self.pattern.spans(&whole, queries));
        self.keys.places(&spans::all_together(lists.collect(), self.whole.kv_len))
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.pattern.alike(&self.site(site), self.queries.position(a), self.queries.position(b))
    }

    fn varies(&self) -> Varies {
        self.pattern.varies()
    }

    fn why(&self) -> Option<&'static str> {
        self.pattern.why()
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        let own = self.extent();
        match *extent == own {
            true => Ok(()),
            false => Err(Error::argument("Excerpt", format!("the lengths {own:?}"), format!("{extent:?}"))),
        }
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
