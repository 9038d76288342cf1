//! Times and memory of attention by burn and by this crate.

use crate::model::Attend;
use crate::plot::{Plot, svg};
use crate::{Error, by_burn, by_us, mask};
use burn::tensor::wgpu::{MemoryConfiguration, WgpuSetup};
use burn::tensor::{Device, Distribution, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use wgpu_attention_burn::pattern::BigBird;

const LENGTHS: [usize; 5] = [512, 1024, 2048, 4096, 8192];
const NAMES: [&str; 2] = ["burn, mask", "wgpu-attention, BigBird"];
const HEADS: usize = 2;
const DIM: usize = 64;
/// A case that would take longer is not run.
const LONGEST: Duration = Duration::from_secs(60);

/// What was measured of a case.
struct Row {
    attention: &'static str,
    keys: usize,
    /// Of a call without gradients, and of one with them; the least of the repeats.
    forward: Duration,
    gradients: Duration,
    /// Most bytes on the device during the call with gradients, beyond q, k, v and the mask.
    bytes: u64,
}

/// Measures, and writes encoder.json, encoder.md and encoder.svg.
pub(crate) fn measure(folder: &Path) -> Result<(), Error> {
    // A page per tensor: what is allocated then says what is used.
    let options = Device::wgpu_options().memory_config(MemoryConfiguration::ExclusivePages);
    let (device, setup) = options.init_with_setup()?;
    let (device, setup) = (&device, &setup);
    wgpu_attention_burn::attach(device, setup)?;
    let pattern = BigBird::new(64, 3, 2, 3, 0)?;
    let mut rows: Vec<Row> = vec![];
    for (name, ours) in NAMES.into_iter().zip([false, true]) {
        for keys in LENGTHS {
            let before = rows.iter().rfind(|row| row.attention == name);
            // burn's time grows with the square.
            if before.is_some_and(|row| 4 * (row.gradients + row.forward) > LONGEST) {
                eprintln!("{name}, {keys} keys: not run, by its time at half of them");
                break;
            }
            let attend = if ours { by_us(pattern) } else { by_burn(mask(&pattern, 1, HEADS, keys, device)) };
            // What an operation beyond the device's limits leaves is quick, and no result.
            if let Some(why) = differs(keys, &attend, &by_us(pattern), device)? {
                eprintln!("{name}, {keys} keys: not shown, {why}");
                continue;
            }
            let row = case(name, keys, &attend, device, setup)?;
            eprintln!(
                "{name}, {keys} keys: {:?}, {:?} with gradients, {} bytes",
                row.forward, row.gradients, row.bytes
            );
            rows.push(row);
        }
    }
    std::fs::create_dir_all(folder)?;
    let record = record(&rows, setup);
    std::fs::write(folder.join("encoder.json"), serde_json::to_string_pretty(&record)? + "\n")?;
    std::fs::write(folder.join("encoder.md"), table(&rows, &record))?;
    std::fs::write(folder.join("encoder.svg"), picture(&rows))?;
    Ok(())
}

/// Whether both give other results for the same inputs, and how; also where one has none.
fn differs(keys: usize, one: &Attend, other: &Attend, device: &Device) -> Result<Option<String>, Error> {
    let normal = Distribution::Normal(0.0, 1.0);
    let inputs = [0; 3].map(|_| Tensor::<4>::random([1, HEADS, keys, DIM], normal, device));
    let mut values = vec![];
    for attend in [one, other] {
        let [q, k, v] = inputs.clone();
        match attend(q, k, v).try_into_data() {
            Ok(data) => values.push(data.try_to_vec::<f32>()?),
            Err(error) => return Ok(Some(format!("it failed: {error}"))),
        }
    }
    let far = values[0].iter().zip(&values[1]).map(|(a, b)| (a - b).abs());
    // Outputs are averages of numbers near 1; NaN is far, too.
    let far = far.fold(0.0, |most: f32, x| if x <= most { most } else { x });
    Ok((far.is_nan() || far > 1e-3).then(|| format!("its output is off by {far}")))
}

fn case(
    attention: &'static str,
    keys: usize,
    attend: &Attend,
    device: &Device,
    setup: &WgpuSetup,
) -> Result<Row, Error> {
    let normal = Distribution::Normal(0.0, 1.0);
    let inputs = [0; 3].map(|_| Tensor::<4>::random([1, HEADS, keys, DIM], normal, device));
    let with_gradients = inputs.clone().map(|x| Tensor::from_inner(x).require_grad());
    let forward = || {
        let [q, k, v] = inputs.clone();
        vec![attend(q, k, v)]
    };
    let gradients = || {
        let [q, k, v] = with_gradients.clone();
        let gradients = attend(q, k, v).sum().backward();
        with_gradients.iter().map(|x| x.grad(&gradients).expect("a gradient")).collect()
    };
    let (forward, _) = best(&forward, device, setup)?;
    let (gradients, bytes) = best(&gradients, device, setup)?;
    Ok(Row { attention, keys, forward, gradients, bytes })
}

/// The shortest time, and the most bytes that are allocated when all is submitted or when it is done.
fn best(
    call: &dyn Fn() -> Vec<Tensor<4>>,
    device: &Device,
    setup: &WgpuSetup,
) -> Result<(Duration, u64), Error> {
    device.memory_cleanup();
    device.sync()?;
    let allocated =
        || setup.device.generate_allocator_report().map_or(0, |report| report.total_allocated_bytes);
    let before = allocated();
    let mut most = 0;
    // The first compiles.
    let (mut times, mut rest) = (vec![], 4);
    while rest > 0 {
        let start = Instant::now();
        let results = call();
        device.flush()?;
        most = most.max(allocated());
        device.sync()?;
        times.push(start.elapsed());
        most = most.max(allocated());
        drop(results);
        // Few repeats of what takes long.
        rest = if start.elapsed() > Duration::from_secs(10) { rest.min(2) - 1 } else { rest - 1 };
    }
    let time = times.iter().skip(1).min().or(times.first()).copied().unwrap_or_default();
    Ok((time, most.saturating_sub(before)))
}

fn record(rows: &[Row], setup: &WgpuSetup) -> Value {
    let info = setup.adapter.get_info();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "attention": row.attention,
                "keys": row.keys,
                "forward_s": row.forward.as_secs_f64(),
                "forward_and_gradients_s": row.gradients.as_secs_f64(),
                "device_bytes": row.bytes,
            })
        })
        .collect();
    json!({
        "command": "cargo run --example encoder -- measure results",
        "memory": "a page per tensor (MemoryConfiguration::ExclusivePages)",
        "adapter": format!("{}, {} {}", info.name, info.driver, info.driver_info),
        "date": date(),
        "batch": 1,
        "heads": HEADS,
        "head_dim": DIM,
        "pattern": "BigBird: block 64, window 3, global 2, random 3",
        "rows": rows,
    })
}

fn table(rows: &[Row], record: &Value) -> String {
    let text = |key: &str| record[key].as_str().unwrap_or_default().to_string();
    let mut lines = format!(
        "`{}`, {}, {}; f32, batch 1, {HEADS} heads of {DIM}; {}. The least of up to three times; most bytes on the device beyond q, k, v \
         and burn's mask, with a page per tensor.\n\n| attention | keys | forward | with gradients | memory |\n|---|---:|---:|---:|---:|\n",
        text("command"),
        text("adapter"),
        text("date"),
        text("pattern"),
    );
    for Row { attention, keys, forward, gradients, bytes } in rows {
        let [forward, gradients] = [forward, gradients].map(|time| time.as_secs_f64());
        let mib = *bytes as f64 / f64::from(1 << 20);
        lines += &format!("| {attention} | {keys} | {forward:.3} s | {gradients:.3} s | {mib:.1} MiB |\n");
    }
    lines
}

fn picture(rows: &[Row]) -> String {
    let curves = |of: &dyn Fn(&Row) -> f64| {
        let curve = |name: &'static str| {
            let own = rows.iter().filter(|row| row.attention == name);
            (name, own.map(|row| (row.keys as f64, of(row))).collect())
        };
        NAMES.map(curve).to_vec()
    };
    let mib = |row: &Row| row.bytes as f64 / f64::from(1 << 20);
    svg(&[
        Plot {
            title: "forward and gradients",
            unit: "seconds",
            curves: curves(&|row| row.gradients.as_secs_f64()),
        },
        Plot { title: "memory on the device", unit: "MiB", curves: curves(&mib) },
    ])
}

/// Today in UTC, by the rule of the Gregorian calendar that years begin in March.
fn date() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = now.as_secs() / 86_400 + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month, january) =
        (of_year - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1, u64::from(month >= 10));
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + january)
}
