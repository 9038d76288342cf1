//! Variants of `decode.wgsl` and of what appends to its cache, `decode/`.

use super::{Header, Shader, tensor};
use crate::{CacheStorage, ElementType, RotaryPairs};

/// Which new rows are whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NewRows {
    /// Every sequence has the same number of them.
    Same,
    /// A buffer says how many each sequence has.
    Counted,
    /// They lie packed, and a buffer says where those of each sequence begin.
    Packed,
}

/// Which rows are attended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttendedRows {
    /// Of a cache; values have rows of their own.
    Cached,
    /// Of a cache; values are elements of the keys' rows, from this one on.
    ValuesInKeys(usize),
    /// Of packed tensors that are the caller's; whether rows of keys, and of values, begin at multiples of 4 elements.
    Packed([bool; 2]),
}

/// Where a cache lies, and what says how many rows are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheText {
    /// Positions of a page, a power of two; none where a sequence lies in one piece.
    pub page: Option<usize>,
    /// Which rows are new.
    pub new: NewRows,
}

impl NewRows {
    fn label(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Counted => " counts",
            Self::Packed => " packed",
        }
    }
}

impl CacheText {
    fn label(self) -> String {
        let page = self.page.map_or("contiguous".to_owned(), |page| format!("page {page}"));
        format!("{page}{}", self.new.label())
    }

    fn header(self) -> Header {
        Header::default().u32s(&[("PAGE", self.page.unwrap_or(1))])
    }

    fn counts(self) -> &'static str {
        match self.new {
            NewRows::Same => include_str!("../../shaders/decode/same_count.wgsl"),
            NewRows::Counted => include_str!("../../shaders/decode/counts.wgsl"),
            NewRows::Packed => include_str!("../../shaders/decode/offsets.wgsl"),
        }
    }

    fn tiles(self) -> &'static str {
        match self.new {
            NewRows::Packed => include_str!("../../shaders/decode/tiles_of_packed.wgsl"),
            _ => include_str!("../../shaders/decode/tiles_of_sequences.wgsl"),
        }
    }

    fn new_rows(self) -> &'static str {
        match self.new {
            NewRows::Packed => include_str!("../../shaders/decode/new_of_packed.wgsl"),
            _ => include_str!("../../shaders/decode/new_of_sequences.wgsl"),
        }
    }

    fn rows(self) -> &'static str {
        match self.page {
            Some(_) => include_str!("../../shaders/decode/paged.wgsl"),
            None => include_str!("../../shaders/decode/contiguous.wgsl"),
        }
    }
}

/// The text that defines `load_NAME(at, count)` and `scale_of_NAME(at)` of the cache's keys or values.
fn cached(name: &str, storage: CacheStorage) -> String {
    match storage {
        CacheStorage::Int8 => include_str!("../../shaders/decode/int8.wgsl").replace("TENSOR", name),
        CacheStorage::Elements(element) => unscaled(name, element, true),
    }
}

/// That of elements that are what they are.
fn unscaled(name: &str, element: ElementType, aligned: bool) -> String {
    let scale = include_str!("../../shaders/decode/unscaled.wgsl").replace("TENSOR", name);
    [tensor::reads(name, element, aligned), scale].join("\n")
}

impl AttendedRows {
    fn label(self, cache: CacheText) -> String {
        let unaligned = |aligned, name| if aligned { "" } else { name };
        match self {
            Self::Cached => format!("cache {}", cache.label()),
            Self::ValuesInKeys(start) => format!("cache {} values in keys from {start}", cache.label()),
            Self::Packed([k, v]) => {
                format!("packed keys{}{}", unaligned(k, " unaligned-k"), unaligned(v, " unaligned-v"))
            }
        }
    }

    /// The texts that say where rows are, and how they are read.
    fn files(self, storage: CacheStorage, cache: CacheText) -> Vec<String> {
        let rows = include_str!("../../shaders/decode/cached_rows.wgsl").to_owned();
        let in_cache = [LENGTHS.to_owned(), cache.rows().to_owned(), rows, cached("keys", storage)];
        let packed = |name, aligned| unscaled(name, storage.element(), aligned);
        let (first, values) = match self {
            Self::Cached => (in_cache.to_vec(), cached("values", storage)),
            Self::ValuesInKeys(_) => {
                (in_cache.to_vec(), include_str!("../../shaders/decode/values_in_keys.wgsl").to_owned())
            }
            Self::Packed([k, v]) => {
                let rows = include_str!("../../shaders/decode/packed_rows.wgsl").to_owned();
                (vec![rows, packed("keys", k)], packed("values", v))
            }
        };
        first.into_iter().chain([values]).collect()
    }
}

const LENGTHS: &str = include_str!("../../shaders/decode/lengths.wgsl");

/// All that tells one attention kernel over a cache from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecodeVariant {
    /// Elements of a query and of a key, d.
    pub head_dim: usize,
    /// Elements of a value, dv.
    pub value_dim: usize,
    /// Rows of a workgroup, in groups of 4: 1 or 2.
    pub row_groups: usize,
    /// Storage of q.
    pub q: ElementType,
    /// Rows of q begin at multiples of 4 elements.
    pub aligned_q: bool,
    /// Storage of keys and values.
    pub storage: CacheStorage,
    /// Which rows are attended.
    pub rows: AttendedRows,
    /// Where the cache lies, if there is one, and which rows are new.
    pub cache: CacheText,
    /// Memory is touched before it is walked: for CPUs, whose lanes wait for it one after the other.
    pub touches: bool,
}

impl DecodeVariant {
    /// Keys whose scores a workgroup has at a time.
    pub const CHUNK: usize = 256;
    /// Keys whose values are summed by themselves, at most.
    pub(crate) const STRETCH: usize = 128;
    /// Bytes of workgroup memory that every device has.
    const WORKGROUP_BYTES: usize = 16384;

    /// Keys of a stretch: they lie one behind the other.
    pub fn stretch(&self) -> usize {
        self.cache.page.map_or(Self::STRETCH, |page| page.min(Self::STRETCH))
    }

    /// Lanes of a workgroup: one per group of 4 columns, so that all of them walk the same keys.
    pub fn lanes(&self) -> usize {
        Self::lanes_of(self.value_dim)
    }

    fn lanes_of(value_dim: usize) -> usize {
        value_dim.div_ceil(4).next_power_of_two().max(32)
    }

    /// Groups of 4 rows for a tile of `rows` rows, as far as workgroup memory reaches.
    pub fn row_groups(rows: usize, head_dim: usize, value_dim: usize) -> usize {
        if rows > 4 && Self::workgroup_bytes(2, head_dim, value_dim) <= Self::WORKGROUP_BYTES { 2 } else { 1 }
    }

    /// Queries, scores, what lanes have and what eight of them have together, of so many groups of rows; and what a workgroup owns.
    fn workgroup_bytes(row_groups: usize, head_dim: usize, value_dim: usize) -> usize {
        let lanes = Self::lanes_of(value_dim);
        16 * (4 * head_dim.div_ceil(4) + Self::CHUNK + lanes + lanes / 8) * row_groups + 64
    }

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let label = format!(
            "decode d{} dv{} rows {} q {}{} keys {} {}",
            self.head_dim,
            self.value_dim,
            4 * self.row_groups,
            self.q,
            if self.aligned_q { "" } else { " unaligned-q" },
            self.storage,
            self.rows.label(self.cache),
        );
        let q = tensor::reads("q", self.q, self.aligned_q);
        let rows = self.rows.files(self.storage, self.cache);
        let mut files =
            vec![include_str!("../../shaders/decode.wgsl"), self.cache.counts(), self.cache.tiles(), &q];
        files.extend(rows.iter().map(String::as_str));
        let header = self.cache.header().u32s(&[
            ("LANES", self.lanes()),
            ("CHUNK", Self::CHUNK),
            ("STRETCH", self.stretch()),
            ("ROW_GROUPS", self.row_groups),
            ("HEAD_DIM", self.head_dim),
            ("HEAD_GROUPS", self.head_dim.div_ceil(4)),
            ("VALUE_DIM", self.value_dim),
            ("VALUE_GROUPS", self.value_dim.div_ceil(4)),
            ("BEFORE_ROW", self.storage.before_row()),
            ("LINE", 64 / self.storage.size_bytes()),
        ]);
        let header = header.u32s(&self.row_constants());
        let values_apart = !matches!(self.rows, AttendedRows::ValuesInKeys(_));
        let header = header.bools(&[("TOUCHES", self.touches), ("VALUES_APART", values_apart)]);
        let mut members = vec![("kernel", "KernelParams"), ("cache", "CacheParams"), ("q", "Rows")];
        if let AttendedRows::Packed(_) = self.rows {
            members.extend([("k", "Rows"), ("v", "Rows")]);
        }
        header.params(&members).shader(label, "decode", &files)
    }

    /// Elements of rows of keys and of values, and where a value's own begin in its row.
    fn row_constants(&self) -> [(&'static str, usize); 3] {
        let [key, value] = [self.head_dim, self.value_dim].map(|dim| self.storage.row(dim));
        let before = self.storage.before_row();
        let [value, value_at] = match self.rows {
            AttendedRows::ValuesInKeys(start) => [key, before + start],
            _ => [value, before],
        };
        [("KEY_ROW", key), ("VALUE_ROW", value), ("VALUE_AT", value_at)]
    }
}

/// Where rows that are appended go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppendTarget {
    /// Into the cache.
    Cache,
    /// Side by side: queries.
    Queries,
}

/// All that tells one appending kernel from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AppendVariant {
    /// Elements of a row.
    pub dim: usize,
    /// Where rows go.
    pub target: AppendTarget,
    /// How many elements of a row turn, and which together.
    pub rotary: Option<(usize, RotaryPairs)>,
    /// Storage of new rows.
    pub input: ElementType,
    /// New rows begin at multiples of 4 elements.
    pub aligned: bool,
    /// Storage of where they go.
    pub output: CacheStorage,
    /// Where the cache lies.
    pub cache: CacheText,
}

impl AppendVariant {
    /// Lanes of a workgroup, as the shader says.
    pub const LANES: usize = 64;

    /// Workgroups for this many rows: one each where they are quantised, else one per 64 groups of 4 elements.
    pub fn workgroups(&self, rows: usize) -> u128 {
        match self.output {
            CacheStorage::Int8 => rows as u128,
            CacheStorage::Elements(_) => {
                (rows as u128 * self.dim.div_ceil(4) as u128).div_ceil(Self::LANES as u128)
            }
        }
    }

    /// The kernel, and the output that it stores to.
    fn kernel(&self) -> [String; 2] {
        match self.output {
            CacheStorage::Int8 => [include_str!("../../shaders/decode/quantize.wgsl").into(), String::new()],
            CacheStorage::Elements(element) => {
                [include_str!("../../shaders/decode/append.wgsl").into(), tensor::writes(element, true)]
            }
        }
    }

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let turns = match self.rotary {
            None => "plain".to_owned(),
            Some((dim, RotaryPairs::HalfSplit)) => format!("half-split {dim}"),
            Some((dim, RotaryPairs::Interleaved)) => format!("interleaved {dim}"),
        };
        let label = format!(
            "append {:?} {} {turns} {}->{}{} {}",
            self.target,
            self.dim,
            self.input,
            self.output,
            if self.aligned { "" } else { " unaligned" },
            self.cache.label(),
        );
        // A pair's elements do not lie in one vector.
        let x = tensor::reads("x", self.input, self.aligned && self.rotary.is_none());
        let [kernel, out] = self.kernel();
        let mut files = vec![&*kernel, LENGTHS, self.cache.counts(), self.cache.new_rows(), &x, &out];
        match self.target {
            AppendTarget::Cache => {
                files.extend([include_str!("../../shaders/decode/into_cache.wgsl"), self.cache.rows()]);
            }
            AppendTarget::Queries => files.push(include_str!("../../shaders/decode/of_queries.wgsl")),
        }
        let mut header = self.cache.header().u32s(&[("DIM", self.dim), ("GROUPS", self.dim.div_ceil(4))]);
        if let Some((dim, pairs)) = self.rotary {
            files.extend([
                include_str!("../../shaders/decode/turned.wgsl"),
                include_str!("../../shaders/lib/rotary.wgsl"),
            ]);
            let interleaved = pairs == RotaryPairs::Interleaved;
            header = header
                .u32s(&[("ROTARY_DIM", dim)])
                .bools(&[("INTERLEAVED", interleaved), ("INVERSE", false)]);
        } else {
            files.push(include_str!("../../shaders/decode/plain.wgsl"));
        }
        let members = [("kernel", "KernelParams"), ("cache", "CacheParams"), ("x", "Rows")];
        header.params(&members).shader(label, "append", &files)
    }
}

/// What raises the lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RaiseVariant {
    /// Which rows are new.
    pub new: NewRows,
}

impl RaiseVariant {
    /// Lanes of a workgroup, as the shader says.
    pub const LANES: usize = 64;

    /// The shader of this variant.
    pub fn shader(&self) -> Shader {
        let cache = CacheText { page: None, new: self.new };
        let label = format!("raise lengths{}", self.new.label());
        let files = [include_str!("../../shaders/decode/raise.wgsl"), cache.counts()];
        let members = [("kernel", "KernelParams"), ("cache", "CacheParams")];
        Header::default().params(&members).shader(label, "raise", &files)
    }
}

/// Shaders in which every file and every constant's values occur.
pub(super) fn representatives() -> Vec<Shader> {
    use ElementType::{Bf16, F16, F32};
    let cache = |page, counts| CacheText { page, new: if counts { NewRows::Counted } else { NewRows::Same } };
    let packed_rows = CacheText { page: Some(16), new: NewRows::Packed };
    let decode = DecodeVariant {
        head_dim: 64,
        value_dim: 64,
        row_groups: 1,
        q: F32,
        aligned_q: true,
        storage: F32.into(),
        rows: AttendedRows::Cached,
        cache: cache(None, false),
        touches: false,
    };
    let paged = DecodeVariant { storage: F16.into(), touches: true, cache: cache(Some(16), true), ..decode };
    let odd = DecodeVariant { head_dim: 7, value_dim: 20, q: Bf16, aligned_q: false, ..decode };
    let wide = DecodeVariant { head_dim: 128, value_dim: 128, row_groups: 2, storage: Bf16.into(), ..paged };
    let append = AppendVariant {
        dim: 64,
        target: AppendTarget::Cache,
        rotary: None,
        input: F32,
        aligned: true,
        output: F32.into(),
        cache: cache(None, false),
    };
    let turned = AppendVariant {
        rotary: Some((32, RotaryPairs::HalfSplit)),
        output: F16.into(),
        cache: cache(Some(16), true),
        ..append
    };
    let pairs = Some((6, RotaryPairs::Interleaved));
    let queries =
        AppendVariant { dim: 7, target: AppendTarget::Queries, rotary: pairs, input: F16, ..append };
    let odd_rows = AppendVariant { dim: 7, input: Bf16, aligned: false, output: Bf16.into(), ..append };
    let int8 = DecodeVariant { storage: CacheStorage::Int8, ..paged };
    let packed = DecodeVariant { cache: packed_rows, ..decode };
    // Latent rows: as wide as they may be.
    let latent =
        DecodeVariant { head_dim: 576, value_dim: 512, rows: AttendedRows::ValuesInKeys(64), ..paged };
    let latent_int8 = DecodeVariant { storage: CacheStorage::Int8, ..latent };
    let own_rows = DecodeVariant { rows: AttendedRows::Packed([true; 2]), cache: packed_rows, ..decode };
    let odd_own_rows = DecodeVariant {
        rows: AttendedRows::Packed([false; 2]),
        cache: packed_rows,
        storage: Bf16.into(),
        ..odd
    };
    let append_packed = AppendVariant { cache: packed_rows, ..append };
    let quantized = AppendVariant { output: CacheStorage::Int8, ..append };
    let turned_int8 = AppendVariant { output: CacheStorage::Int8, ..turned };
    let mut shaders: Vec<_> =
        [decode, paged, odd, wide, int8, packed, latent, latent_int8, own_rows, odd_own_rows]
            .iter()
            .map(DecodeVariant::shader)
            .collect();
    shaders.extend(
        [append, turned, queries, odd_rows, quantized, turned_int8, append_packed]
            .iter()
            .map(AppendVariant::shader),
    );
    let new = [NewRows::Same, NewRows::Counted, NewRows::Packed];
    shaders.extend(new.map(|new| RaiseVariant { new }.shader()));
    shaders
}
