//! What the instructions tell: the loops, and what they are made of.
//!
//! A listing has blocks (`BB7:`) of instructions, a tab before each. A branch to a block that came before closes a
//! loop; loops nest by their places, as the compiler lays them out.

use std::collections::BTreeMap;

/// Fewer fma in a loop than this, and it is no hot loop.
const LEAST_FMA: u32 = 16;

/// Counts of instructions by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mix {
    /// All, but for hints that take no slot of their own.
    pub all: u32,
    /// Vector arithmetic; the two halves of a dual instruction count as two.
    pub vector: u32,
    /// Of these, fused multiply-adds.
    pub fma: u32,
    /// Of these, matrix products.
    pub matrix: u32,
    /// Accesses to workgroup memory.
    pub lds: u32,
    /// Vector accesses to memory.
    pub memory: u32,
    /// Scalar instructions, scalar loads and waits among them, branches not.
    pub scalar: u32,
    /// Branches.
    pub branches: u32,
}

/// A loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// Its first block.
    pub block: String,
    /// What it is made of, loops inside it left out.
    pub own: Mix,
    /// Whether no loop is inside it.
    pub innermost: bool,
}

impl Loop {
    /// The share of fma among the vector instructions that are no matrix products.
    pub fn fma_percent(&self) -> f64 {
        100.0 * f64::from(self.own.fma) / f64::from((self.own.vector - self.own.matrix).max(1))
    }
}

impl Mix {
    /// Counts one line of a listing.
    fn count(&mut self, line: &str) {
        for half in line.split(" :: ") {
            let name = half.split_whitespace().next().unwrap_or_default();
            // Hints to the scheduler of RDNA3, and what fills the instruction cache.
            if ["s_delay_alu", "s_clause", "s_nop", "s_code_end"].contains(&name) {
                continue;
            }
            self.all += 1;
            let operation =
                name.strip_prefix("v_dual_").or(name.strip_prefix("v_pk_")).or(name.strip_prefix("v_"));
            if let Some(operation) = operation {
                self.vector += 1;
                let is_fused = ["fma", "fmac", "fmamk", "fmaak", "mad_f", "mac_f", "madmk", "madak"];
                self.fma += u32::from(is_fused.iter().any(|prefix| operation.starts_with(prefix)));
                self.matrix += u32::from(["wmma", "mfma"].iter().any(|prefix| operation.starts_with(prefix)));
            } else if name.starts_with("ds_") {
                self.lds += 1;
            } else if ["buffer_", "global_", "flat_", "scratch_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                self.memory += 1;
            } else if name.starts_with("s_cbranch") || name == "s_branch" {
                self.branches += 1;
            } else {
                self.scalar += 1;
            }
        }
    }

    /// Whether the loop does the arithmetic: matrix products, or enough fma.
    fn works(&self) -> bool {
        self.matrix > 0 || self.fma >= LEAST_FMA
    }
}

/// The loops that do the arithmetic, in order.
///
/// Of the innermost loops those with at least a quarter of the most fma. A loop around others counts where it has
/// more fma of its own than any of them: then a compiler has unrolled its inner loop.
pub fn hot_loops(listing: &str) -> Vec<Loop> {
    let all = loops(listing);
    let most = |innermost: bool| {
        let kind = all.iter().filter(|one| !innermost || one.innermost);
        kind.map(|one| one.own.fma).max().unwrap_or(0)
    };
    let (most_inside, most) = (most(true), most(false));
    let is_hot = |one: &Loop| {
        let enough = if one.innermost { one.own.fma >= most_inside / 4 } else { one.own.fma >= most };
        one.own.works() && (one.own.matrix > 0 || enough)
    };
    all.into_iter().filter(is_hot).collect()
}

/// All loops of a listing, by their first blocks.
pub fn loops(listing: &str) -> Vec<Loop> {
    let lines: Vec<&str> = listing.lines().map(|line| line.split(';').next().unwrap_or_default()).collect();
    let block_at =
        |line: &&str| line.strip_suffix(':').filter(|name| name.starts_with("BB")).map(String::from);
    let blocks: BTreeMap<String, usize> =
        lines.iter().enumerate().filter_map(|(at, line)| Some((block_at(&line.trim())?, at))).collect();

    // From the first line of a loop to its last branch back.
    let mut spans: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let mut words = line.split_whitespace();
        let is_branch = words.next().is_some_and(|name| name.starts_with("s_cbranch") || name == "s_branch");
        if let (true, Some(&start)) = (is_branch, words.next().and_then(|target| blocks.get(target))) {
            if start <= at {
                spans.entry(start).and_modify(|end| *end = at.max(*end)).or_insert(at);
            }
        }
    }

    let inside = |outer: (usize, usize), inner: (usize, usize)| {
        outer != inner && outer.0 <= inner.0 && inner.1 <= outer.1
    };
    let found = spans.iter().map(|(&start, &end)| {
        let nested: Vec<_> = spans.iter().filter(|&(&s, &e)| inside((start, end), (s, e))).collect();
        let is_own = |at: &usize| !nested.iter().any(|&(&s, &e)| (s..=e).contains(at));
        let mut own = Mix::default();
        for line in (start..=end).filter(is_own).map(|at| lines[at]) {
            // Instructions, but for remarks like "(then repeated 6 times)".
            if line.starts_with('\t') && !line.trim_start().starts_with('(') {
                own.count(line.trim());
            }
        }
        Loop { block: lines[start].trim().trim_end_matches(':').into(), own, innermost: nested.is_empty() }
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop with a divergent loop and two working loops inside.
    const LISTING: &str = "BB0:\n\tv_mov_b32_e32 v0, 0 ; 7e1c0280\n\ts_nop 0\n\t(then repeated 6 times)\n\
        BB1:\n\tv_exp_f32_e32 v0, v0\n\tv_fma_f32 v0, v1, v2, v3\n\ts_mul_i32 s0, s1, s2\n\
        BB2:\n\tv_add_nc_u32_e32 v2, 1, v2\n\tds_store_b128 v2, v[4:7]\n\ts_cbranch_scc0 BB2\n\
        BB3:\n\tds_load_b128 v[24:27], v22\n\ts_waitcnt lgkmcnt(0)\n\ts_delay_alu instid0(VALU_DEP_1)\n\
        \tv_dual_fmac_f32 v1, v2, v3 :: v_dual_fmac_f32 v4, v5, v6\n\tv_pk_fma_f16 v1, v2, v3, v4\n\
        \tv_fmac_f32_e32 v1, v2, v3\n\tv_fmac_f32_e32 v1, v2, v3\n\tv_fmac_f32_e32 v1, v2, v3\n\
        \tv_fmac_f32_e32 v1, v2, v3\n\tv_fmac_f32_e32 v1, v2, v3\n\tv_fmac_f32_e32 v1, v2, v3\n\
        \tv_fmac_f32_e32 v1, v2, v3\n\tv_fmac_f32_e32 v1, v2, v3\n\
        \tv_fmac_f32_e32 v1, v2, v3\n\tv_fmac_f32_e32 v1, v2, v3\n\tv_fmac_f32_e32 v1, v2, v3\n\
        \tv_mac_f32_e32 v1, v2, v3\n\tv_mad_u32_u24 v1, v2, v3, v4\n\tv_fma_mix_f32 v1, v2, v3, v4\n\
        \ts_cbranch_vccnz BB3\n\
        BB4:\n\tv_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]\n\tbuffer_load_b32 v1, v2, s[0:3], 0\n\
        \ts_cbranch_scc1 BB4\n\
        BB5:\n\ts_cbranch_scc1 BB1\n\ts_branch BB6\n\
        BB6:\n\ts_endpgm\n";

    #[test]
    fn loops_are_found_with_what_is_their_own() {
        let all = loops(LISTING);
        let names: Vec<_> = all.iter().map(|one| (one.block.as_str(), one.innermost)).collect();
        assert_eq!(names, [("BB1", false), ("BB2", true), ("BB3", true), ("BB4", true)]);
        assert_eq!(all[0].own, Mix { all: 4, vector: 2, fma: 1, scalar: 1, branches: 1, ..Mix::default() });
        assert_eq!(all[1].own, Mix { all: 3, vector: 1, lds: 1, branches: 1, ..Mix::default() });
        let working = Mix { all: 20, vector: 17, fma: 16, lds: 1, scalar: 1, branches: 1, ..Mix::default() };
        assert_eq!(all[2].own, working);
        assert_eq!(
            all[3].own,
            Mix { all: 3, vector: 1, matrix: 1, memory: 1, branches: 1, ..Mix::default() }
        );
    }

    #[test]
    fn the_working_loops_are_hot() {
        let hot = hot_loops(LISTING);
        assert_eq!(hot.iter().map(|one| one.block.as_str()).collect::<Vec<_>>(), ["BB3", "BB4"]);
        assert!((hot[0].fma_percent() - 100.0 * 16.0 / 17.0).abs() < 1e-9);
    }

    #[test]
    fn an_unrolled_inner_loop_makes_the_outer_one_hot() {
        let outer = "\tv_fmac_f32_e32 v1, v2, v3\n".repeat(100);
        let inner = "\tv_fmac_f32_e32 v1, v2, v3\n".repeat(20);
        let listing = format!("BB1:\n{outer}BB2:\n{inner}\ts_cbranch_scc1 BB2\nBB3:\n\ts_cbranch_scc1 BB1\n");
        let hot = hot_loops(&listing);
        assert_eq!(hot.iter().map(|one| one.own.fma).collect::<Vec<_>>(), [100, 20]);
        assert!(hot_loops("BB0:\n\tv_fmac_f32_e32 v1, v2, v3\n\ts_endpgm\n").is_empty());
    }
}
