// Queries and keys in sorted places, cut into chunks: a query of chunk c sees the chunks c - LOOK_BACK ..= c + LOOK_AHEAD.
//
// `places` holds the order of the places and, where needed, the other tables of lsh_tables.wgsl. A *line* is what is cut into
// chunks: all rounds of a head end to end (CHAIN_ROUNDS), or each by itself. A dispatch computes the queries of one round;
// a row tile lies within one chunk. Rows and keys count places from the head's first.
//
// In a backward pass the rows may be keys (ROWS_ARE_QUERIES says so), and the columns the queries that see them: then a chunk meets
// those by which it is seen, and what is called a key below is a query.

struct KeepParams {
    round: u32,             // which of the rounds, whose tables are shared
    buckets_at: u32,        // where the tables of `places` begin, in words: the buckets of the places,
    places_at: u32,         //   and the places of the positions
}

@group(0) @binding(BINDING_places) var<storage, read> places: array<u32>;

// First place and end of a row tile: empty where a chunk is cut off by its round.
fn rows_of(row_tile: u32) -> vec2<u32> {
    let first_place = params.keep.round * params.kernel.q_len;
    let first_chunk = (first_place - line_at()) / PLACES_PER_CHUNK;
    let chunk_at = line_at() + (first_chunk + row_tile / ROW_TILES_PER_CHUNK) * PLACES_PER_CHUNK;
    let end = min(chunk_at + PLACES_PER_CHUNK, first_place + params.kernel.q_len);
    return vec2(max(chunk_at, first_place) + row_tile % ROW_TILES_PER_CHUNK * ROWS, end);
}

fn line_at() -> u32 { return select(params.keep.round * params.kernel.q_len, 0u, CHAIN_ROUNDS); }

fn line_len() -> u32 { return select(params.kernel.q_len, params.kernel.k_count, CHAIN_ROUNDS); }

fn chunk_count() -> u32 { return (line_len() + PLACES_PER_CHUNK - 1u) / PLACES_PER_CHUNK; }

// The first chunk that a chunk of queries of a line of `chunks` sees, and how many: they may pass the last, and go on at 0.
fn chunks_seen(chunk: u32, chunks: u32) -> vec2<u32> { return chunks_around(chunk, chunks, LOOK_BACK, LOOK_AHEAD); }

// Likewise those that a chunk of rows meets.
fn chunks_met(chunk: u32, chunks: u32) -> vec2<u32> {
    if (ROWS_ARE_QUERIES) { return chunks_seen(chunk, chunks); }
    return chunks_around(chunk, chunks, LOOK_AHEAD, LOOK_BACK);
}

fn chunks_around(chunk: u32, chunks: u32, back: u32, ahead: u32) -> vec2<u32> {
    if (WRAP) { return vec2((chunk + chunks - back % chunks) % chunks, min(back + 1u + ahead, chunks)); }
    let first = chunk - min(chunk, back);
    return vec2(first, min(chunk + ahead, chunks - 1u) - first + 1u);
}

// Its keys are never split.
fn has_tiles(at: Head) -> bool { return true; }

// The keys of a row tile: one stretch of chunks, or two where the line goes round. One loop calls for both: `attend` is most
// of the kernel, and each call of it a copy.
fn walk(at: Head, lane: Lane) {
    let chunks = chunk_count();
    let seen = chunks_met((at.first_row - line_at()) / PLACES_PER_CHUNK, chunks);
    for (var turn = 0u; turn < 2u; turn++) {
        let first_chunk = select(0u, seen.x, turn == 0u);
        let end_chunk = select(max(seen.x + seen.y, chunks) - chunks, min(seen.x + seen.y, chunks), turn == 0u);
        let end = line_at() + min(end_chunk * PLACES_PER_CHUNK, line_len());
        for (var first = line_at() + first_chunk * PLACES_PER_CHUNK; first < end; first += KEYS) {
            // The kind says where the head's tables begin; keys of a tile count from the head's first place.
            attend(at, lane, KeyTile(first, min(KEYS, end - first), head_places(at), first));
        }
    }
}

fn head_places(at: Head) -> u32 { return (at.batch * params.kernel.heads + at.head) * params.kernel.k_count; }

fn keep(head_at: u32, row: u32, key: vec4<u32>) -> vec4<bool> {
    let i = head_at + min(row, params.kernel.k_count - 1u);
    let j = vec4(head_at) + min(key, vec4(params.kernel.k_count - 1u));
    var seen = vec4(true);
    if (CAUSAL && ROWS_ARE_QUERIES) { seen = vec4(places[j.x], places[j.y], places[j.z], places[j.w]) <= vec4(places[i]); }
    if (CAUSAL && !ROWS_ARE_QUERIES) { seen = vec4(places[i]) <= vec4(places[j.x], places[j.y], places[j.z], places[j.w]); }
    if (WITHIN_BUCKET || HAS_KEY_MASK) {
        let g = vec4(params.keep.buckets_at) + j;
        let bucket = vec4(places[g.x], places[g.y], places[g.z], places[g.w]);
        if (HAS_KEY_MASK) {
            var of_key = bucket;
            if (!ROWS_ARE_QUERIES) { of_key = vec4(places[params.keep.buckets_at + i]); }
            seen = seen & (of_key != vec4(BUCKETS));
        }
        if (WITHIN_BUCKET) {
            let same_round = min(key, vec4(params.kernel.k_count - 1u)) / params.kernel.q_len == vec4(row / params.kernel.q_len);
            seen = seen & same_round & (bucket == vec4(places[params.keep.buckets_at + i]));
        }
    }
    return seen;
}

// The same of keys that are inside, as bits.
const KEPT = vec4(1u, 1u << 8u, 1u << 16u, 1u << 24u);

fn kept(head_at: u32, row: u32, key: vec4<u32>, inside: u32) -> u32 {
    let seen = select(vec4(0u), KEPT, keep(head_at, row, key));
    return ((seen.x | seen.y) | (seen.z | seen.w)) & inside;
}

fn query_at(at: Head, row: u32) -> u32 { return places[head_places(at) + min(row, params.kernel.q_count - 1u)]; }

fn key_at(at: Head, key: u32) -> u32 { return places[head_places(at) + min(key, params.kernel.k_count - 1u)]; }

fn key_offset(at: Head, key: u32) -> u32 { return at.k_at + key_at(at, key) * params.k.row; }

fn value_offset(at: Head, key: u32) -> u32 { return at.v_at + key_at(at, key) * params.v.row; }
