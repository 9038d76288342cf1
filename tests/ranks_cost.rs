//! What a pass over ranks costs, against a count of every pair and every byte, asked of the mask key by key.

#[path = "../examples/distributed_scale.rs"]
mod distributed_scale;

use proptest::prelude::*;
use wgpu_attention::ranks::{Assignment, Cost, Machine, Pass, PassCost, Travel, needs};
use wgpu_attention::{
    Attention, AttentionShape, BigBird, BlockGrid, BlockMask, Causal, Document, ElementType, First, Full,
    Global, Or, PairPredicate, Pattern, Predicate, Storage, Strided, Window,
};
use wgpu_attention_testing::long;

/// 1 TFLOP/s per rank, 1 GB/s and 1 us between any two.
fn machine() -> Machine {
    Machine::new(1e12, 1e9, 1e-6)
}

/// What a rank has to do, by asking for every pair.
#[derive(Debug, PartialEq, Default)]
struct Counted {
    kept: u64,
    visited: u64,
    /// Keys that it gets of each rank.
    needed: Vec<u64>,
}

fn count(mask: &BlockMask, [queries, keys]: [&Assignment; 2], rank: usize) -> Counted {
    let grid = mask.grid();
    let mut counted = Counted { needed: vec![0; keys.ranks()], ..Counted::default() };
    let mut touched = vec![false; grid.k_blocks()];
    for (batch, head) in (0..grid.batch).flat_map(|batch| (0..grid.heads).map(move |head| (batch, head))) {
        let mut blocks = vec![false; grid.q_blocks() * grid.k_blocks()];
        for i in queries.rows(rank).iter().cloned().flatten() {
            for j in (0..grid.kv_len).filter(|&j| mask.keeps(batch, head, i, j)) {
                counted.kept += 1;
                blocks[i / grid.block_q * grid.k_blocks() + j / grid.block_k] = true;
                touched[j / grid.block_k] = true;
            }
        }
        let visited = blocks.iter().filter(|&&visited| visited).count();
        counted.visited += (visited * grid.block_q * grid.block_k) as u64;
    }
    for j in (0..grid.kv_len).filter(|j| touched[j / grid.block_k]) {
        counted.needed[keys.owner(j).unwrap()] += 1;
    }
    counted
}

fn check_all(call: &Attention, pattern: &dyn Pattern, grid: BlockGrid, rows: [&Assignment; 2]) {
    let mask = BlockMask::new(pattern, grid).unwrap();
    let ranks = rows[0].ranks();
    let counted: Vec<_> = (0..ranks).map(|rank| count(&mask, rows, rank)).collect();
    let shape = &call.shape;
    // One key of k and of v, as it is stored and as a gradient.
    let elements = (shape.batch * shape.kv_heads * (shape.head_dim + shape.value_dim)) as u64;
    let (key, gradient) = (elements * call.storage.kv.size_bytes() as u64, elements * 4);
    for travel in [Travel::Needed, Travel::Shards] {
        let cost = Cost::new(call.clone(), &mask, rows, travel, machine()).unwrap();
        assert_eq!((cost.kept(), cost.visited()), (mask.kept(), mask.visited()));
        for (rank, (got, want)) in cost.ranks.iter().zip(&counted).enumerate() {
            assert_eq!((got.kept, got.visited), (want.kept, want.visited), "rank {rank}");
            assert_eq!((got.queries, got.keys), (rows[0].count(rank), rows[1].count(rank)));
            let others = || (0..ranks).filter(|&other| other != rank);
            let needed = |of: usize, holder: usize| match travel {
                Travel::Needed => counted[of].needed[holder],
                Travel::Shards => rows[1].count(holder) as u64,
                Travel::Shared => unreachable!("see `check_shared`"),
            };
            let received: Vec<u64> = others().map(|other| needed(rank, other)).collect();
            let sent: Vec<u64> = others().map(|other| needed(other, rank)).collect();
            let [received, sent] = [received, sent]
                .map(|keys| (keys.iter().sum::<u64>(), keys.iter().filter(|&&keys| keys > 0).count() as u64));
            let PassCost { received_bytes, received_messages, sent_bytes, sent_messages, .. } = got.forward;
            let content = |messages: u64, bytes: u64| 16 * messages + bytes;
            assert_eq!(received_bytes, content(received.1, received.0 * key), "rank {rank}");
            assert_eq!(sent_bytes, content(sent.1, sent.0 * key), "rank {rank}");
            assert_eq!([received_messages, sent_messages], [received.1, sent.1], "rank {rank}");
            // The gradients of what came go back.
            let PassCost { received_bytes, received_messages, sent_bytes, sent_messages, .. } = got.backward;
            let both = received.1 + sent.1;
            assert_eq!(received_bytes, content(both, received.0 * key + sent.0 * gradient), "rank {rank}");
            assert_eq!(sent_bytes, content(both, sent.0 * key + received.0 * gradient), "rank {rank}");
            assert_eq!([received_messages, sent_messages], [both; 2], "rank {rank}");
            if travel == Travel::Needed {
                let said = needs(pattern, grid.extent(), rows, rank, grid.block_k).unwrap();
                let said: Vec<_> = (0..ranks).map(|holder| said.keys(holder) as u64).collect();
                assert_eq!(said, want.needed, "rank {rank}");
            }
        }
        check_efficiency(&cost);
    }
    check_shared(&Cost::new(call.clone(), &mask, rows, Travel::Shared, machine()).unwrap(), &mask);
}

fn check_efficiency(cost: &Cost) {
    for pass in [Pass::Forward, Pass::Backward] {
        let efficiency = cost.efficiency(pass);
        assert!((0.0..=1.0 + 1e-12).contains(&efficiency), "{efficiency}");
        assert!(cost.ranks.len() > 1 || (efficiency - 1.0).abs() < 1e-12, "{efficiency}");
    }
}

/// Every pair is computed once, and what is sent comes; how many bytes they are, the program's own record says (crates/ranks).
fn check_shared(cost: &Cost, mask: &BlockMask) {
    assert_eq!((cost.kept(), cost.visited()), (mask.kept(), mask.visited()));
    for pass in [Pass::Forward, Pass::Backward] {
        let sum = |of: fn(&PassCost) -> u64| cost.ranks.iter().map(|rank| of(rank.pass(pass))).sum::<u64>();
        assert_eq!(sum(|it| it.sent_bytes), sum(|it| it.received_bytes));
        assert_eq!(sum(|it| it.sent_messages), sum(|it| it.received_messages));
    }
    check_efficiency(cost);
}

fn patterns() -> Vec<Box<dyn Pattern>> {
    let scattered = PairPredicate::new(|i, j| (i * 7 + j * 3) % 97 == 0);
    let by_head = Predicate::new(|site, i, j| (i + site.head + 2 * site.batch) % 5 == 0 && j % 40 < 3);
    vec![
        Box::new(Full),
        Box::new(Causal),
        Box::new(Window { before: 40, after: 0 }),
        Box::new(Window { before: 9, after: 30 }),
        Box::new(BigBird { block: 16, window: 3, global: 1, random: 2, seed: 5 }),
        Box::new(Strided::new(16).unwrap()),
        Box::new(Document::new((0..200).map(|j| j / 70).collect::<Vec<u32>>())),
        Box::new(scattered),
        Box::new(by_head),
        Box::new(PairPredicate::new(|_, _| false)),
    ]
}

/// Assignments of every kind: fewer ranks than blocks, more, one; uneven ones with empty shares.
fn assignment(kind: usize, len: usize, block: usize, ranks: usize) -> Assignment {
    match kind {
        0 => Assignment::contiguous(len, block, ranks),
        1 => Assignment::zig_zag(len, block, ranks),
        _ => {
            // Rank r asks for r mod 3 blocks; the last one takes what is left.
            let mut left = len;
            let mut rows: Vec<_> = (0..ranks)
                .map(|rank| {
                    let count = (rank % 3 * block).min(left);
                    left -= count;
                    count
                })
                .collect();
            rows[ranks - 1] += left;
            Assignment::uneven(&rows)
        }
    }
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_those_of_every_pair(
        (which, kind, ranks) in (0usize..10, 0usize..3, 1usize..14),
        (len, kv_len) in (1usize..201, 1usize..201),
        ([block_q, block_k], [batch, heads]) in ([4u32..7, 4..7].prop_map(|log| log.map(|log| 1 << log)), [1usize..3, 1..3]),
    ) {
        let pattern = &patterns()[which];
        let (len, kv_len) = match which {
            // As many blocks as are drawn, and documents of a length of their own.
            4 => (len, kv_len.max(100)),
            6 => (200, 200),
            _ => (len, kv_len),
        };
        let shape = AttentionShape::new(batch, 2 * heads, len, 8).kv_len(kv_len).kv_heads(heads).value_dim(24);
        let call = shape.storage(Storage::all(ElementType::F16).q(ElementType::F16));
        let grid = BlockGrid::from(&shape).blocks(block_q, block_k);
        let rows = [assignment(kind, len, block_q, ranks), assignment(kind, kv_len, block_k, ranks)];
        check_all(&call, pattern.as_ref(), grid, [&rows[0], &rows[1]]);
    }
}

fn dense(pattern: &dyn Pattern, len: usize, rows: &Assignment, machine: Machine) -> Cost {
    let call = AttentionShape::new(1, 2, len, 32);
    let mask = BlockMask::new(pattern, BlockGrid::from(&call)).unwrap();
    Cost::new(call, &mask, [rows; 2], Travel::Needed, machine).unwrap()
}

/// Rank r and its two stripes: what the early one sees less, the late one sees more.
#[test]
fn zig_zag_gives_all_ranks_the_same() {
    for ranks in [1, 2, 3, 8, 64] {
        let len = 2 * ranks * 3 * 64;
        let zig_zag = dense(&Causal, len, &Assignment::zig_zag(len, 64, ranks).unwrap(), machine());
        assert_eq!(zig_zag.imbalance(), 1.0, "{ranks} ranks");
        let first = zig_zag.ranks[0];
        assert!(zig_zag.ranks.iter().all(|rank| rank.kept == first.kept && rank.visited == first.visited));
        let contiguous = dense(&Causal, len, &Assignment::contiguous(len, 64, ranks).unwrap(), machine());
        let most = (6 * ranks) as f64 - 2.5;
        // Of 6 blocks per rank: the last one's rows see 6 (R - 1) blocks and 3.5 in the mean, against 6 R / 2 and half a block.
        assert!((contiguous.imbalance() - most / (3.0 * ranks as f64 + 0.5)).abs() < 1e-12, "{ranks} ranks");
    }
}

/// Where keys arrive sooner than they are needed, only arithmetic counts; where they arrive late, each step waits for them.
#[test]
fn a_step_takes_the_longer_of_arithmetic_and_travel() {
    let (len, ranks) = (8 * 64, 4);
    let rows = Assignment::contiguous(len, 64, ranks).unwrap();
    // Per step 128 queries by 128 keys in 2 heads, 128 operations each, and 128 keys of 512 bytes.
    let (flops, bytes) = (2.0 * 128.0 * 128.0 * 128.0, 16.0 + 128.0 * 512.0);
    for machine in
        [Machine::new(1e9, 1e9, 1e-6), Machine::new(1e12, 1e9, 1e-6), Machine::new(1e12, 1e12, 1.0)]
    {
        let cost = dense(&Full, len, &rows, machine);
        let compute = flops / machine.flops_per_s;
        let travel = machine.latency_s + bytes / machine.bytes_per_s;
        let want = compute + 3.0 * compute.max(travel);
        assert!((cost.time_s(Pass::Forward) / want - 1.0).abs() < 1e-12, "{machine:?}");
        // 2.5 times the arithmetic; 3 messages of keys, 3 of gradients of f32, of which the last one goes when all is done.
        let compute = 2.5 * compute;
        let want = 3.0 * compute.max(travel) + compute.max(2.0 * travel) + travel;
        assert!((cost.time_s(Pass::Backward) / want - 1.0).abs() < 1e-12, "{machine:?}: {cost:?} {want}");
        assert_eq!(cost.ranks[1].forward.steps, 4);
    }
}

/// Own queries, keys, results and the two shards in flight.
#[test]
fn memory_is_that_of_the_tensors() {
    let rows = Assignment::contiguous(512, 64, 4).unwrap();
    let rank = dense(&Full, 512, &rows, machine()).ranks[2];
    let (row, state) = (2 * 32 * 4, 2 * 2 * 4);
    assert_eq!(rank.forward.memory_bytes, 128 * (2 * row + state) + 3 * 128 * 2 * row);
    assert_eq!(rank.backward.memory_bytes, 128 * (4 * row + state) + 3 * 128 * 4 * row);
    let alone = dense(&Full, 512, &Assignment::contiguous(512, 64, 1).unwrap(), machine()).ranks[0];
    assert_eq!(alone.forward.memory_bytes, 512 * (4 * row + state));
    assert_eq!((alone.forward.sent_messages, alone.forward.received_bytes), (0, 0));
}

/// First keys that all attend, and global rows: whoever holds them sends a message in each round of the tree, as does who hands them on,
/// and results come back the same way.
#[test]
fn what_all_ranks_get_takes_the_rounds_of_the_tree() {
    let (ranks, block) = (13, 64);
    let len = ranks * 16 * block;
    let rows = Assignment::contiguous(len, block, ranks).unwrap();
    let window = Window { before: 100, after: 0 };
    let (both, keys) = (Or(window, Global { tokens: [5].into() }), Or(window, First { count: 3 }));
    let (query, key) = (2 * 32 * 4, 2 * 2 * 32 * 4);
    let (result, gradients) = (2 * 34 * 4, 2 * 2 * 32 * 4);
    for (pattern, there, back) in
        [(&both as &dyn Pattern, 64 * (query + key), 64 * result), (&keys, 64 * key, 0)]
    {
        let call = AttentionShape::new(1, 2, len, 32);
        let mask = BlockMask::new(pattern, BlockGrid::from(&call).blocks(block, block)).unwrap();
        // No arithmetic: what is left is what travels.
        let machine = Machine::new(1e300, 1e9, 1e-6);
        let cost = Cost::new(call, &mask, [&rows; 2], Travel::Shared, machine).unwrap();
        let plain = BlockMask::new(&window, BlockGrid::from(&call).blocks(block, block)).unwrap();
        let plain = Cost::new(call, &plain, [&rows; 2], Travel::Needed, machine).unwrap();
        let forward = |cost: &Cost, rank: usize| cost.ranks[rank].forward;
        // Rank 0 sends to 1, 2, 4 and 8; the last one gets the rows, and sends nothing on.
        let more = |rank| forward(&cost, rank).sent_bytes - forward(&plain, rank).sent_bytes;
        let (there, back) = (16 + there, if back == 0 { 0 } else { 16 + back });
        assert_eq!((more(0), more(12), more(1)), (4 * there, back, 3 * there + back));
        let time = cost.time_s(Pass::Forward) - plain.time_s(Pass::Forward);
        let message = |bytes: u64| if bytes == 0 { 0.0 } else { 1e-6 + bytes as f64 / 1e9 };
        assert!((time / (4.0 * (message(there) + message(back))) - 1.0).abs() < 1e-9, "{time}");
        let backward = cost.ranks[12].backward.sent_bytes - plain.ranks[12].backward.sent_bytes;
        let queries = if back == 0 { 0 } else { 64 * query };
        assert_eq!(backward, 16 + queries + 64 * gradients);
    }
}

/// A window's keys come from the neighbour: one message however many ranks there are.
#[test]
fn a_window_has_one_neighbour() {
    let rows = Assignment::contiguous(64 * 64, 64, 16).unwrap();
    let cost = dense(&Window { before: 100, after: 0 }, 64 * 64, &rows, machine());
    for (rank, cost) in cost.ranks.iter().enumerate() {
        let (to, from) = (u64::from(rank < 15), u64::from(rank > 0));
        assert_eq!((cost.forward.sent_messages, cost.forward.received_messages), (to, from), "rank {rank}");
        assert_eq!(cost.forward.received_bytes, from * (16 + 128 * 512), "two blocks");
    }
}

#[test]
fn nothing_costs_nothing() {
    for shape in [
        AttentionShape::new(0, 2, 128, 8),
        AttentionShape::new(1, 2, 0, 8),
        AttentionShape::new(1, 1, 64, 8).kv_len(0),
    ] {
        let mask = BlockMask::new(&Full, BlockGrid::from(&shape)).unwrap();
        let rows = [shape.q_len, shape.kv_len].map(|len| Assignment::contiguous(len, 64, 3).unwrap());
        let cost = Cost::new(shape, &mask, [&rows[0], &rows[1]], Travel::Needed, machine()).unwrap();
        assert_eq!((cost.kept(), cost.visited(), cost.imbalance()), (0, 0, 1.0));
        assert_eq!((cost.time_s(Pass::Backward), cost.efficiency(Pass::Backward)), (0.0, 1.0), "{shape:?}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let shape = AttentionShape::new(1, 2, 256, 8);
    let mask = BlockMask::new(&Full, BlockGrid::from(&shape)).unwrap();
    let rows = |len, ranks| Assignment::contiguous(len, 64, ranks).unwrap();
    let (good, other) = (rows(256, 4), rows(256, 2));
    let refused = |call: Attention, rows: [&Assignment; 2], machine: Machine| {
        Cost::new(call, &mask, rows, Travel::Needed, machine).unwrap_err().to_string()
    };
    let call = || Attention::from(shape);
    let (short, cut) = (rows(192, 4), Assignment::uneven(&[100, 156, 0, 0]).unwrap());
    let many = Assignment::contiguous(256, 64, Cost::MOST_RANKS + 1).unwrap();
    for (error, want) in [
        (refused(call(), [&short, &good], machine()), "queries: need an assignment of 256 rows, got 192"),
        (refused(call(), [&good, &short], machine()), "keys: need an assignment of 256 rows, got 192"),
        (refused(call(), [&good, &other], machine()), "keys: need 4 ranks, as queries, got 2"),
        (
            refused(call(), [&good, &cut], machine()),
            "keys: need stretches of whole blocks of 64 rows, got one from row 100 on",
        ),
        (refused(call(), [&many; 2], machine()), "ranks needs 16385, but Cost::MOST_RANKS is 16384"),
        (
            refused(shape.kv_len(128).into(), [&good; 2], machine()),
            "kv_len: need 256, as in the mask, got 128",
        ),
        (
            refused(shape.kv_heads(3).into(), [&good; 2], machine()),
            "kv_heads: need a divisor of heads (2), got 3",
        ),
        (
            refused(call(), [&good; 2], Machine::new(0.0, 1.0, 0.0)),
            "flops_per_s: need a finite number above 0, got 0",
        ),
        (
            refused(call(), [&good; 2], Machine::new(1.0, f64::NAN, 0.0)),
            "bytes_per_s: need a finite number above 0, got NaN",
        ),
        (
            refused(call(), [&good; 2], Machine::new(1.0, 1.0, -1.0)),
            "latency_s: need a finite number of at least 0, got -1",
        ),
    ] {
        assert_eq!(error, want);
    }
}

/// The laws of docs/distributed_scale.md: up to rho rows per rank nobody waits, at half as many everybody does half of the time.
#[test]
fn a_key_has_to_meet_as_many_queries_as_the_page_says() {
    // rho = F b Hkv / (2 B H) = 512 rows.
    let (ranks, rho, machine) = (8, 512, Machine::new(256e9, 1e9, 0.0));
    let contiguous = |len| Assignment::contiguous(len, 64, ranks).unwrap();
    let zig_zag = |len| Assignment::zig_zag(len, 64, ranks).unwrap();
    let efficiency = |pattern: &dyn Pattern, len, rows: &Assignment| {
        dense(pattern, len, rows, machine).efficiency(Pass::Forward)
    };
    let full = |rows: usize| efficiency(&Full, ranks * rows, &contiguous(ranks * rows));
    let causal = |rows: usize| efficiency(&Causal, ranks * rows, &zig_zag(ranks * rows));
    for (law, least) in [(&full as &dyn Fn(usize) -> f64, rho), (&causal, 2 * rho)] {
        assert!(
            law(least) > 0.99 && (0.5..0.6).contains(&law(least / 2)),
            "{} {}",
            law(least),
            law(least / 2)
        );
    }
    // Of a window, only the pairs with a rank's own keys are there to hide the others' keys. The first rank has fewer.
    let window =
        |rows: usize| efficiency(&Window { before: 255, after: 0 }, ranks * rows, &contiguous(ranks * rows));
    assert!(window(rho + 128) > 0.97 && window(rho / 2) < 0.8, "{} {}", window(rho + 128), window(rho / 2));
    // One rank holds the global rows; where they travel, all have as much to do.
    for ranks in [2, 8, 32] {
        let len = ranks * 32 * 64;
        let bigbird = BigBird { block: 64, window: 3, global: 2, random: 3, seed: 1 };
        let imbalance =
            dense(&bigbird, len, &Assignment::contiguous(len, 64, ranks).unwrap(), machine).imbalance();
        let want = (1.0 + 0.25 * ranks as f64) / 1.25;
        assert!((imbalance / want - 1.0).abs() < 0.1, "{imbalance} {want}");
        let rows = Assignment::contiguous(len, 64, ranks).unwrap();
        let call = AttentionShape::new(1, 2, len, 32);
        let mask = BlockMask::new(&bigbird, BlockGrid::from(&call)).unwrap();
        let cost = Cost::new(call, &mask, [&rows; 2], Travel::Shared, machine).unwrap();
        assert!(ranks == 2 || cost.imbalance() < 1.1, "{ranks} ranks: {}", cost.imbalance());
    }
}

#[test]
fn the_goal_is_reached() {
    let call = AttentionShape::new(1, 8, 1 << 20, 128).storage(Storage::all(ElementType::F16));
    let mask = BlockMask::new(&Causal, BlockGrid::from(&call.shape)).unwrap();
    let rows = Assignment::zig_zag(1 << 20, 64, 64).unwrap();
    let machine = Machine::new(200e12, 100e9, 2e-6).share(0.5);
    let cost = Cost::new(call, &mask, [&rows; 2], Travel::Needed, machine).unwrap();
    for pass in [Pass::Forward, Pass::Backward] {
        assert!(cost.efficiency(pass) >= 0.9, "{}", cost.efficiency(pass));
    }
}

/// All of it in a long run, in others the lines of 1M tokens: those of 16M are a minute's work.
#[test]
fn the_page_shows_what_is_computed() {
    let command =
        "`cargo run --example distributed_scale -- docs/distributed_scale.svg`, and look at the change";
    let page = include_str!("../docs/distributed_scale.md");
    if !long() {
        let lines = distributed_scale::lines_of_the_shorter().unwrap();
        assert!(lines.len() >= 40, "{} lines", lines.len());
        return lines.iter().for_each(|line| assert!(page.contains(line), "{command}:\n{line}"));
    }
    let (table, picture) = distributed_scale::pages().unwrap();
    assert!(page.contains(&format!(" -->\n\n{table}\n<!-- table: end -->")), "{command}:\n{table}");
    assert!(include_str!("../docs/distributed_scale.svg") == picture, "{command}");
}
