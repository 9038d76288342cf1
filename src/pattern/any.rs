use super::{
    BigBird, BlockLayout, Blocks, Causal, CausalTopLeft, Dilated, Document, Extent, First, Fixed, Full,
    Global, Identity, KeyLengths, Longformer, Mask, Pattern, Permutation, Piece, Prefix, Random, Range, Site,
    Span, Strided, Varies, Window, names, short, spans,
};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// A pattern as data: for the command line and for files. In Rust code name the pattern itself.
///
/// JSON has the pattern's name under `kind` and its parameters beside it; the short form is made for a command line:
///
/// | JSON | short |
/// |---|---|
/// | `{"kind": "full"}` | `full` |
/// | `{"kind": "causal", "alignment": "top_left"}` | `causal:alignment=top_left` |
/// | `{"kind": "window", "before": 3, "after": 0}` | `window:before=3,after=0`, or `window:before=3` |
/// | `{"kind": "window", "before": -1, "after": 0}`, an end of -1 is open | `window:before=-1` |
/// | `{"kind": "first", "count": 4}` | `first:count=4` |
/// | `{"kind": "document", "ids": [0, 0, 1]}` | `document:ids=[0,0,1]` |
/// | `{"kind": "permutation", "order": [2, 0, 1], "stream": "query"}` | `permutation:order=[2,0,1],stream=query` |
/// | `{"kind": "and", "of": [{"kind": "causal"}, {"kind": "key_lengths", "lengths": [5, 7]}]}` | `causal & key_lengths:lengths=[5,7]` |
/// | `{"kind": "or", "of": [...]}` | `a \| b` |
/// | `{"kind": "not", "of": {"kind": "causal"}}` | `!causal` |
///
/// `!` binds closest, then `&`, then `|`; parentheses group.
///
/// ```
/// use wgpu_attention::pattern::{AnyPattern, Window};
/// let pattern = AnyPattern::parse("window:before=3,after=0")?;
/// assert_eq!(pattern, AnyPattern::Window(Window { before: 3, after: 0 }));
/// assert_eq!(pattern, AnyPattern::parse(&pattern.to_json())?);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum AnyPattern {
    /// [`Full`].
    Full {},
    /// [`Causal`], or [`Causal::top_left`].
    Causal {
        /// What stands at the diagonal.
        #[serde(default)]
        alignment: Alignment,
    },
    /// [`Window`].
    Window(Window),
    /// [`Prefix`].
    Prefix(Prefix),
    /// [`First`].
    First(First),
    /// [`Document`].
    Document(Document),
    /// [`Permutation`].
    Permutation(Permutation),
    /// [`KeyLengths`].
    KeyLengths(KeyLengths),
    /// [`Blocks`]. The layout may lie elsewhere, see [`with_tensors`](Self::with_tensors).
    Blocks(Blocks),
    /// [`Mask`]. The tensor may lie elsewhere, see [`with_tensors`](Self::with_tensors).
    Mask(Mask),
    /// [`Strided`].
    Strided(Strided),
    /// [`Dilated`].
    Dilated(Dilated),
    /// [`Fixed`].
    Fixed(Fixed),
    /// [`Global`].
    Global(Global),
    /// [`Random`].
    Random(Random),
    /// [`BigBird`].
    #[serde(rename = "bigbird")]
    BigBird(BigBird),
    /// [`Longformer`].
    Longformer(Longformer),
    /// Pairs that all of them keep.
    And {
        /// At least one.
        of: Vec<AnyPattern>,
    },
    /// Pairs that any of them keeps.
    Or {
        /// At least one.
        of: Vec<AnyPattern>,
    },
    /// Pairs that it does not keep.
    Not {
        /// The pattern.
        of: Box<AnyPattern>,
    },
}

/// Which corner a causal pattern's diagonal runs into, where Lq != Lk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// The last query at the last key.
    #[default]
    BottomRight,
    /// The first query at the first key.
    TopLeft,
}

/// Tensors that lie beside a pattern rather than in its JSON.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    /// For `mask`.
    pub mask: Option<Mask>,
    /// For `blocks`.
    pub layout: Option<BlockLayout>,
}

impl AnyPattern {
    /// Reads the JSON form, if the text starts with `{`, or else the short form.
    ///
    /// # Errors
    /// [`Error::Argument`] that names what is known, for an unknown pattern (the nearest name first) or parameter, or what
    /// is missing.
    pub fn parse(text: &str) -> Result<Self> {
        let read = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(text).map_err(|error| error.to_string()),
            false => short::read(text),
        };
        let value = read.and_then(|json| {
            names::check(&json)?;
            serde_json::from_value(json).map_err(|error| error.to_string())
        });
        value.map_err(|why| {
            let need = format!("a pattern, as `window:before=3,after=0` or as JSON ({why})");
            Error::argument("pattern", need, format!("`{text}`"))
        })
    }

    /// The JSON form in one line.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists alone: writing them cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Fills in the tensors of every `mask` and `blocks` that came without one.
    pub fn with_tensors(self, tensors: &Tensors) -> Self {
        let each = |of: Vec<Self>| of.into_iter().map(|pattern| pattern.with_tensors(tensors)).collect();
        match (self, &tensors.mask, &tensors.layout) {
            (Self::Mask(mask), Some(tensor), _) if mask == Mask::default() => Self::Mask(tensor.clone()),
            (Self::Blocks(Blocks { block, layout }), _, Some(tensor)) if layout == BlockLayout::default() => {
                Self::Blocks(Blocks { block, layout: tensor.clone() })
            }
            (Self::And { of }, ..) => Self::And { of: each(of) },
            (Self::Or { of }, ..) => Self::Or { of: each(of) },
            (Self::Not { of }, ..) => Self::Not { of: Box::new(of.with_tensors(tensors)) },
            (pattern, ..) => pattern,
        }
    }
}

/// The same call on whatever pattern of the crate it is; the others are combinations.
macro_rules! one {
    ($self:ident, $p:ident => $call:expr, $($others:tt)*) => {
        match $self {
            Self::Full {} => { let $p = &Full; $call }
            Self::Causal { alignment: Alignment::BottomRight } => { let $p = &Causal; $call }
            Self::Causal { alignment: Alignment::TopLeft } => { let $p = &CausalTopLeft; $call }
            Self::Window($p) => $call,
            Self::Prefix($p) => $call,
            Self::First($p) => $call,
            Self::Document($p) => $call,
            Self::Permutation($p) => $call,
            Self::KeyLengths($p) => $call,
            Self::Blocks($p) => $call,
            Self::Mask($p) => $call,
            Self::Strided($p) => $call,
            Self::Dilated($p) => $call,
            Self::Fixed($p) => $call,
            Self::Global($p) => $call,
            Self::Random($p) => $call,
            Self::BigBird($p) => $call,
            Self::Longformer($p) => $call,
            $($others)*
        }
    };
}

impl Pattern for AnyPattern {
    fn identity(&self) -> Identity<'_> {
        one!(self, p => p.identity(),
            Self::And { of } => of.iter().map(Self::identity).reduce(Identity::both).unwrap_or(Identity::of(&Full)),
            Self::Or { of } => {
                let either = of.iter().map(Self::identity).reduce(Identity::either);
                either.unwrap_or(Identity::complement(Identity::of(&Full)))
            }
            Self::Not { of } => Identity::complement(of.identity()),
        )
    }

    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        one!(self, p => p.keep(site, i, j),
            Self::And { of } => of.iter().all(|p| p.keep(site, i, j)),
            Self::Or { of } => of.iter().any(|p| p.keep(site, i, j)),
            Self::Not { of } => !of.keep(site, i, j),
        )
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let ones = spans::ones(site.extent.kv_len.saturating_sub(j));
        one!(self, p => p.keep_word(site, i, j),
            Self::And { of } => of.iter().fold(ones, |word, p| word & p.keep_word(site, i, j)),
            Self::Or { of } => of.iter().fold(0, |word, p| word | p.keep_word(site, i, j)),
            Self::Not { of } => ones & !of.keep_word(site, i, j),
        )
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let kv_len = site.extent.kv_len;
        let fold = |of: &[Self], join: fn(&[Span], &[Span], usize) -> Vec<Span>| {
            let joined = of.iter().map(|p| p.spans(site, rows.clone())).reduce(|a, b| join(&a, &b, kv_len));
            joined.unwrap_or_default()
        };
        one!(self, p => p.spans(site, rows),
            Self::And { of } => fold(of, spans::and),
            Self::Or { of } => fold(of, spans::or),
            Self::Not { of } => spans::not(&of.spans(site, rows), kv_len),
        )
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        one!(self, p => p.alike(site, a, b),
            Self::And { of } | Self::Or { of } => of.iter().all(|p| p.alike(site, a, b)),
            Self::Not { of } => of.alike(site, a, b),
        )
    }

    fn why(&self) -> Option<&'static str> {
        one!(self, p => p.why(), Self::And { .. } | Self::Or { .. } | Self::Not { .. } => None,)
    }

    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        one!(self, p => p.pieces(extent),
            _ => self.identity().to_pattern().pieces(extent),
        )
    }

    fn written(&self, extent: &Extent) -> Option<Box<dyn Pattern>> {
        one!(self, p => p.written(extent), Self::And { .. } | Self::Or { .. } | Self::Not { .. } => None,)
    }

    fn varies(&self) -> Varies {
        one!(self, p => p.varies(),
            Self::And { of } | Self::Or { of } => of.iter().fold(Varies::default(), |v, p| v.or(p.varies())),
            Self::Not { of } => of.varies(),
        )
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        one!(self, p => p.check(extent),
            Self::And { of } | Self::Or { of } => {
                if of.is_empty() {
                    return Err(Error::argument("pattern.of", "at least one pattern", 0));
                }
                of.iter().try_for_each(|p| p.check(extent))
            }
            Self::Not { of } => of.check(extent),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{BlockGrid, BlockMask};

    fn parse(text: &str) -> AnyPattern {
        AnyPattern::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(text: &str) -> String {
        match AnyPattern::parse(text) {
            Ok(pattern) => format!("accepted: {pattern:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// Every kind, in JSON and in the short form, and what both mean.
    #[test]
    fn both_forms_of_every_kind() {
        let forms = [
            (r#"{"kind":"full"}"#, "full"),
            (r#"{"kind":"causal","alignment":"bottom_right"}"#, " causal "),
            (r#"{"kind":"causal","alignment":"top_left"}"#, "causal:alignment=top_left"),
            (r#"{"kind":"window","before":1073741824,"after":0}"#, "window: before = 1073741824, after = 0"),
            (r#"{"kind":"prefix","len":7}"#, "prefix:len=7"),
            (r#"{"kind":"first","count":4}"#, "first:count=4"),
            (r#"{"kind":"document","ids":[3,3,1]}"#, "document:ids=[3, 3, 1]"),
            (r#"{"kind":"document","ids":[[0],[1]]}"#, "document:ids=[[0],[1]]"),
            (
                r#"{"kind":"permutation","order":[1,0],"stream":"content"}"#,
                "permutation:order=[1,0],stream=content",
            ),
            (
                r#"{"kind":"permutation","order":[[0],[0]],"stream":"query","given":1}"#,
                "permutation:order=[[0],[0]],stream=query,given=1",
            ),
            (r#"{"kind":"key_lengths","lengths":[5,7]}"#, "key_lengths:lengths=[5,7]"),
            (
                r#"{"kind":"blocks","block":16,"layout":[[[1,0],[0,1]]]}"#,
                "blocks:block=16,layout=[[true,false],[0,1]]",
            ),
            (r#"{"kind":"mask","sizes":[1,1,1,2],"values":[1,0]}"#, "mask:sizes=[1,1,1,2],values=[1,0]"),
            (r#"{"kind":"mask"}"#, "mask"),
            (
                r#"{"kind":"or","of":[{"kind":"and","of":[{"kind":"full"},{"kind":"not","of":{"kind":"prefix","len":1}}]},{"kind":"full"}]}"#,
                "full&!prefix:len=1|full",
            ),
            (
                r#"{"kind":"and","of":[{"kind":"full"},{"kind":"not","of":{"kind":"or","of":[{"kind":"full"},{"kind":"full"}]}}]}"#,
                "full & !(full | full)",
            ),
        ];
        for (json, text) in forms {
            assert_eq!(parse(json), parse(text), "{json}");
            assert_eq!(parse(json).to_json(), json);
        }
        assert_eq!(parse(r#" {"kind": "causal"}"#), AnyPattern::Causal { alignment: Alignment::BottomRight });
        assert_eq!(parse("full"), AnyPattern::Full {});
        assert_eq!(parse("window:before=1,after=2"), AnyPattern::Window(Window { before: 1, after: 2 }));
    }

    #[test]
    fn errors_name_what_is_known() {
        let need = "pattern: need a pattern, as `window:before=3,after=0` or as JSON";
        for (text, why) in [
            ("window:befor=1", "unknown field `befor`, expected `before` or `after`".to_owned()),
            ("window:after=1", "missing field `before`".to_owned()),
            (
                "window:before=-2,after=0",
                "invalid value: integer `-2`, expected a number of keys, or -1 for no end".to_owned(),
            ),
            (
                "window:before=x,after=0",
                "invalid type: string \"x\", expected a number of keys, or -1 for no end".to_owned(),
            ),
            ("bigbird:block=64,window=3,global=1", "missing field `random`".to_owned()),
            ("window:before=1,before=2", "`before` given twice".to_owned()),
            ("full:x=1", "unknown field `x`, there are no fields".to_owned()),
            (
                "causal:alignment=middle",
                "unknown variant `middle`, expected `bottom_right` or `top_left`".to_owned(),
            ),
            (
                "document:ids=[0,-1]",
                "a list of ids, one per key, or a list of such lists, one per batch item".to_owned(),
            ),
            ("document:ids=[0,", "expected a list as in JSON at `[0,`".to_owned()),
            (
                "blocks:block=1,layout=[[2]]",
                "nested lists of 0 and 1: [rows][columns] or [heads][rows][columns]".to_owned(),
            ),
            (
                "blocks:block=1,layout=[[1],[1,0]]",
                "Blocks.layout[0]: need 2 rows of 1, as at the start, got a row of 2".to_owned(),
            ),
            ("mask:values=[1]", "Mask.sizes: need four sizes, as there are values, got none".to_owned()),
            ("mask:sizes=[1,1,1,2],values=[1]", "Mask.values: need 1 x 1 x 1 x 2 values, got 1".to_owned()),
            ("", "expected a name at the end".to_owned()),
            ("full full", "expected `&`, `|` or the end at `full`".to_owned()),
            ("(full", "expected `)` at the end".to_owned()),
            ("full & | full", "expected a name at `| full`".to_owned()),
            ("window:before", "expected `=` at the end".to_owned()),
            ("window:before=,after=1", "expected a value at `,after=1`".to_owned()),
        ] {
            assert_eq!(refusal(text), format!("{need} ({why}), got `{text}`"));
        }
        let unknown = refusal("windw:before=1");
        assert!(unknown.contains("(no pattern is called `windw`: `window`, "), "{unknown}");
        assert!(refusal(r#"{"kind":"window","before":1,"after":0,"x":1}"#).contains("unknown field `x`"));
        assert!(refusal(r#"{"kind":"full"} x"#).contains("trailing characters"));
        assert!(refusal(r#"{"before":1}"#).contains("missing field `kind`"));
        assert!(refusal(&"!".repeat(100_000)).contains("more than 64 levels of `!` and parentheses"));
        assert!(refusal(&"(".repeat(100_000)).contains("more than 64 levels"));
        assert!(
            refusal(&format!("document:ids={}", "[".repeat(100_000))).contains("expected a list as in JSON")
        );
        let empty = parse(r#"{"kind":"or","of":[]}"#).check(&BlockGrid::new(1, 1).extent());
        assert_eq!(
            empty.map_err(|e| e.to_string()),
            Err("pattern.of: need at least one pattern, got 0".to_owned())
        );
    }

    #[test]
    fn tensors_that_lie_beside() -> Result<()> {
        let tensors = Tensors {
            mask: Some(Mask::new([1, 1, 1, 4], [true, true, true, false])?),
            layout: Some(BlockLayout::new([1, 2, 2], [true, false, true, true])?),
        };
        let pattern =
            parse(r#"{"kind":"and","of":[{"kind":"blocks","block":2},{"kind":"not","of":{"kind":"mask"}}]}"#);
        let grid = BlockGrid::new(4, 4);
        assert_eq!(
            BlockMask::new(&pattern, grid).map_err(|e| e.to_string()),
            Err("Blocks.layout: need a layout, got none".to_owned())
        );
        let pattern = pattern.with_tensors(&tensors);
        assert_eq!(BlockMask::new(&pattern, grid)?.pairs(0, 0), "····\n····\n···█\n···█\n");
        // What came with its own keeps it.
        let own = parse("mask:sizes=[1,1,1,1],values=[1]");
        assert_eq!(own.clone().with_tensors(&tensors), own);
        Ok(())
    }

    /// What is typed from other libraries.
    #[test]
    fn open_ends_and_what_may_be_left_out() {
        let window = |before, after| AnyPattern::Window(Window { before, after });
        assert_eq!(parse("window:before=127"), window(127, 0));
        assert_eq!(parse("permutation:order=[1,0]"), AnyPattern::Permutation(Permutation::new([1, 0])));
        assert_eq!(parse("window:before=-1"), window(usize::MAX, 0));
        assert_eq!(parse("window:before=-1,after=-1"), window(usize::MAX, usize::MAX));
        assert_eq!(parse(r#"{"kind":"window","before":3,"after":-1}"#), window(3, usize::MAX));
        assert_eq!(parse(&window(usize::MAX, 3).to_json()), window(usize::MAX, 3));
        assert!(window(usize::MAX, 3).to_json().contains(r#""before":-1"#));
        let dilated = Dilated { before: usize::MAX, after: 0, step: 4 };
        assert_eq!(parse("dilated:before=-1,step=4"), AnyPattern::Dilated(dilated));
        let bigbird = BigBird { block: 64, window: 3, global: 1, random: 2, seed: 0 };
        assert_eq!(parse("bigbird:block=64,window=3,global=1,random=2"), AnyPattern::BigBird(bigbird));
        assert_eq!(
            parse("random:block=64,count=2"),
            AnyPattern::Random(Random { block: 64, count: 2, seed: 0 })
        );
    }

    /// The names that a misspelt one is compared with are those that serde knows.
    #[test]
    fn nearest_names_first() {
        let serde = serde_json::from_str::<AnyPattern>(r#"{"kind":"?"}"#).map_err(|error| error.to_string());
        let listed: Vec<String> = names::ALL.iter().map(|name| format!("`{name}`")).collect();
        let serde = serde.err().unwrap_or_default();
        assert!(serde.contains(&format!("expected one of {} at", listed.join(", "))), "{serde}");
        for (text, nearest) in [
            ("casual", "causal"),
            ("windw:before=1", "window"),
            ("sliding_window:before=1", "window"),
            ("BigBird:block=1", "bigbird"),
            ("big_bird", "bigbird"),
            ("documents:ids=[0]", "document"),
            ("causal & !(full | stride:stride=3)", "strided"),
            (r#"{"kind":"not","of":{"kind":"key_length"}}"#, "key_lengths"),
        ] {
            let said = refusal(text);
            assert!(said.contains(&format!("`: `{nearest}`, ")), "{text}: {said}");
        }
    }

    /// Behind the enum the patterns are themselves, in closed form, too.
    #[test]
    fn delegation() -> Result<()> {
        let grid = BlockGrid::new(70, 100).batch(2).blocks(16, 16);
        let order: Vec<String> = (0..70).map(|n| (n * 33 % 70).to_string()).collect();
        let permutation = format!("permutation:order=[{}],stream=query,given=9", order.join(","));
        for text in [
            "full",
            "causal",
            "causal:alignment=top_left",
            "window:before=20,after=3",
            "prefix:len=33",
            "first:count=33",
            "key_lengths:lengths=[40,90]",
            &permutation,
            "causal & key_lengths:lengths=[40,90] & !window:before=9,after=0",
            "prefix:len=17 | window:before=0,after=5 | !causal",
        ] {
            let pattern = parse(text);
            assert_eq!(BlockMask::new(&pattern, grid)?, BlockMask::scan(&pattern, grid)?, "{text}");
        }
        let same = |text: &str, pattern: &dyn Pattern| -> Result<()> {
            assert_eq!(BlockMask::new(&parse(text), grid)?, BlockMask::new(pattern, grid)?, "{text}");
            Ok(())
        };
        same("full", &Full)?;
        same("causal", &Causal)?;
        same("causal:alignment=top_left", &CausalTopLeft)?;
        same("window:before=20,after=3", &Window { before: 20, after: 3 })?;
        same("prefix:len=33", &Prefix { len: 33 })?;
        same("key_lengths:lengths=[40,90]", &KeyLengths { lengths: vec![40, 90] })
    }
}
