use super::logic::lower::{Columns, Piece};
use super::{And, Extent, Full, Identity, Not, Or, Pattern, Range, Site, Span, Window, spans};
use crate::{Error, Result};
use std::sync::Arc;

/// Tokens that attend everything and that everything attends (Beltagy 2020, section 3.1; Zaheer 2020): j in `tokens`, or
/// i' = i + (Lk - Lq) in `tokens`. As many keys per row as there are tokens; Lk for the tokens themselves.
///
/// ```text
/// tokens: [1]
/// Lq = Lk     Lq < Lk
/// ·█··        ·█··
/// ████        ·█··
/// ·█··
/// ·█··
/// ```
///
/// Tokens are positions of keys; at Lq != Lk the queries stand at the last of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Global {
    /// The tokens, ascending, each once.
    pub tokens: Arc<[usize]>,
}

impl Global {
    /// Global tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] for tokens that do not ascend.
    pub fn new(tokens: impl Into<Arc<[usize]>>) -> Result<Self> {
        let tokens = tokens.into();
        check_ascending("Global.tokens", &tokens)?;
        Ok(Self { tokens })
    }

    fn has(&self, position: isize) -> bool {
        usize::try_from(position).is_ok_and(|position| self.tokens.binary_search(&position).is_ok())
    }
}

/// The tokens' columns for all queries, then their rows for all other keys.
fn gathered(tokens: &Arc<[usize]>, extent: &Extent) -> Vec<Piece> {
    let columns = tokens.iter().map(|&token| token as u32).collect();
    let first = extent.kv_len as isize - extent.q_len as isize;
    let row_of = |&token: &usize| usize::try_from(token as isize - first).ok().filter(|&i| i < extent.q_len);
    let rows: Arc<[u32]> = tokens.iter().filter_map(row_of).map(|i| i as u32).collect();
    let mut pieces = vec![Piece { k_order: Some(columns), ..Piece::natural(Full) }.fitted()];
    if !rows.is_empty() {
        // Few tokens leave whole blocks between them; many do not, and then the other keys are gathered, too.
        let piece = if tokens.len() < extent.kv_len / 256 {
            Piece::natural(Not(Columns::new(tokens, extent.kv_len)))
        } else {
            let others = (0..extent.kv_len).filter(|j| tokens.binary_search(j).is_err());
            Piece { k_order: Some(others.map(|j| j as u32).collect()), ..Piece::natural(Full) }
        };
        pieces.push(Piece { q_order: Some(rows), ..piece }.fitted());
    }
    pieces
}

fn check_ascending(name: &'static str, tokens: &[usize]) -> Result<()> {
    match tokens.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(Error::argument(
            name,
            "ascending tokens, each once",
            format!("{} before {}", pair[0], pair[1]),
        )),
        None => Ok(()),
    }
}

fn check_tokens(name: &'static str, tokens: &[usize], extent: &Extent) -> Result<()> {
    check_ascending(name, tokens)?;
    match tokens.last().filter(|&&last| last >= extent.kv_len) {
        Some(last) => Err(Error::argument(name, format!("tokens below kv_len ({})", extent.kv_len), last)),
        None => Ok(()),
    }
}

/// The tokens among 32 keys.
fn token_word(tokens: &[usize], j: usize) -> u32 {
    let from = tokens.partition_point(|&key| key < j);
    tokens[from..].iter().take_while(|&&key| key < j + 32).fold(0, |word, key| word | 1 << (key - j))
}

impl Pattern for Global {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.has(j as isize) || self.has(site.aligned(i))
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        match self.has(site.aligned(i)) {
            true => spans::ones(site.extent.kv_len - j),
            false => token_word(&self.tokens, j),
        }
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let columns = spans::coarse(self.tokens.iter().map(|&token| token..token + 1));
        token_spans(columns, site.extent.kv_len, rows, |i| self.has(site.aligned(i)))
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        check_tokens("Global.tokens", &self.tokens, extent)
    }

    /// The tokens' keys gathered for all queries; the tokens' queries gathered for all other keys.
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        (!self.tokens.is_empty()).then(|| gathered(&self.tokens, extent))
    }

    fn written(&self, extent: &Extent) -> Option<Box<dyn Pattern>> {
        Some(Box::new(Tokens(Columns::new(&self.tokens, extent.kv_len))))
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.has(site.aligned(a)) == self.has(site.aligned(b))
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// [`Global`], written down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tokens(Columns);

impl Pattern for Tokens {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.0.keep(site, i, j) || self.0.has(site.aligned(i))
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        let is_token = self.0.has(site.aligned(i));
        if is_token { spans::ones(site.extent.kv_len - j) } else { self.0.keep_word(site, i, j) }
    }

    fn row(&self, site: &Site, i: usize, words: &mut [u32]) {
        match self.0.has(site.aligned(i)) {
            true => spans::row(&[Span { keys: 0..site.extent.kv_len, all: true }], words),
            false => self.0.row(site, i, words),
        }
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let columns = self.0.spans(site, rows.clone());
        token_spans(columns, site.extent.kv_len, rows, |i| self.0.has(site.aligned(i)))
    }

    fn alike(&self, site: &Site, a: usize, b: usize) -> bool {
        self.0.has(site.aligned(a)) == self.0.has(site.aligned(b))
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}

/// The stretches of rows, some of which may be those of tokens.
fn token_spans(
    columns: Vec<Span>,
    kv_len: usize,
    mut rows: Range<usize>,
    is_token: impl Fn(usize) -> bool,
) -> Vec<Span> {
    let every = |all| Span { keys: 0..kv_len, all };
    if rows.clone().all(&is_token) {
        return vec![every(true)];
    }
    if rows.any(is_token) {
        return spans::or(&columns, &[every(false)], kv_len);
    }
    columns
}

/// A window and global tokens (Longformer, Beltagy 2020): |i' - j| <= window / 2, or j or i' among `global`, where
/// i' = i + (Lk - Lq). window + 1 keys per row (for an even window) and the tokens; Lk for the tokens themselves.
///
/// ```text
/// window: 2, global: [0]
/// Lq = Lk     Lq < Lk
/// ██████      ████··
/// ███···      █·███·
/// ████··      █··███
/// █·███·      █···██
/// █··███
/// █···██
/// ```
///
/// The window is the paper's and Hugging Face's `attention_window`: half of it on each side. Longformer projects global
/// queries and keys by matrices of their own; that is two calls, with [`Window`] and [`Global`] and other tensors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Longformer {
    /// Keys of the window beside the query's own: half before it, half after.
    pub window: usize,
    /// The global tokens, ascending, each once.
    #[cfg_attr(feature = "serde", serde(default))]
    pub global: Arc<[usize]>,
}

impl Longformer {
    /// A window and global tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] for tokens that do not ascend.
    pub fn new(window: usize, global: impl Into<Arc<[usize]>>) -> Result<Self> {
        let global = global.into();
        check_ascending("Longformer.global", &global)?;
        Ok(Self { window, global })
    }

    fn local(&self) -> Window {
        Window { before: self.window / 2, after: self.window / 2 }
    }

    fn tokens(&self) -> Global {
        Global { tokens: self.global.clone() }
    }
}

impl Pattern for Longformer {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.local().keep(site, i, j) || self.tokens().keep(site, i, j)
    }

    fn keep_word(&self, site: &Site, i: usize, j: usize) -> u32 {
        self.local().keep_word(site, i, j) | self.tokens().keep_word(site, i, j)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let (local, tokens) = (self.local().spans(site, rows.clone()), self.tokens().spans(site, rows));
        spans::or(&local, &tokens, site.extent.kv_len)
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        check_tokens("Longformer.global", &self.global, extent)
    }

    /// The window without the tokens; then the tokens as in [`Global`].
    fn pieces(&self, extent: &Extent) -> Option<Vec<Piece>> {
        if self.global.is_empty() {
            return None;
        }
        let mut pieces = vec![Piece {
            why: Some("of its windows only what the global tokens leave is kept"),
            ..Piece::natural(And(self.local(), Not(Tokens(Columns::new(&self.global, extent.kv_len)))))
        }];
        pieces.extend(gathered(&self.global, extent));
        Some(pieces)
    }

    fn written(&self, extent: &Extent) -> Option<Box<dyn Pattern>> {
        Some(Box::new(Or(self.local(), Tokens(Columns::new(&self.global, extent.kv_len)))))
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
