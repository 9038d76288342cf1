// New rows [B, heads, new].

struct NewRow { number: u32, batch: u32, head: u32, t: u32, is_new: bool, x_at: u32 }

fn new_row(row: u32) -> NewRow {
    let t = row % params.cache.most_new;
    let head = row / params.cache.most_new % params.kernel.heads;
    let batch = row / params.cache.most_new / params.kernel.heads;
    let x_at = params.x.offset + batch * params.x.batch + head * params.x.head + t * params.x.row;
    return NewRow(row, batch, head, t, t < count_of(batch), x_at);
}
