// The state (m, l) over all splits is not wanted, or in place already.

fn write_total(end: RowEnd) {}
