//! Order statistics of samples. The median and what is built on it do not mind a few samples that something else delayed.

use crate::record::{Clock, Summary};

/// Value below which the share `q` of the samples lies: linear between neighbours (type 7 of Hyndman and Fan 1996, the default of
/// R and NumPy). The samples are sorted and not empty.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

fn sorted(samples: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut samples: Vec<f64> = samples.collect();
    samples.sort_by(f64::total_cmp);
    samples
}

/// Minimum, median, median absolute deviation, 95th percentile; `None` of nothing.
pub fn summary(samples: &[f64]) -> Option<Summary> {
    let ascending = sorted(samples.iter().copied());
    let min_s = *ascending.first()?;
    let median_s = quantile(&ascending, 0.5);
    let deviations = sorted(samples.iter().map(|sample| (sample - median_s).abs()));
    Some(Summary { min_s, median_s, mad_s: quantile(&deviations, 0.5), p95_s: quantile(&ascending, 0.95) })
}

/// Samples with their summary.
pub fn clock(samples_s: Vec<f64>) -> Option<Clock> {
    summary(&samples_s).map(|summary| Clock { samples_s, summary })
}

/// Median absolute deviation over median: what a measurement converges by. Infinite where the median is no time.
pub fn deviation(summary: &Summary) -> f64 {
    if summary.median_s > 0.0 { summary.mad_s / summary.median_s } else { f64::INFINITY }
}

/// The deviation in percent; nothing where there is one sample, which deviates from nothing.
pub fn deviation_text(clock: &Clock) -> String {
    if clock.samples_s.len() < 2 {
        String::new()
    } else {
        format!("{:.2}", 100.0 * deviation(&clock.summary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_samples() {
        // Deviations from 3.5: 0.5, 0.5, 1.5, 2.5, 2.5, 5.5. 95 % of 5 steps is 4.75: three quarters of the way from 6 to 9.
        let it = summary(&[9.0, 1.0, 4.0, 2.0, 3.0, 6.0]).unwrap();
        assert_eq!((it.min_s, it.median_s, it.mad_s, it.p95_s), (1.0, 3.5, 2.0, 8.25));
        let it = summary(&[5.0]).unwrap();
        assert_eq!((it.min_s, it.median_s, it.mad_s, it.p95_s), (5.0, 5.0, 0.0, 5.0));
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn one_sample_has_no_deviation() {
        let text = |samples: &[f64]| deviation_text(&clock(samples.to_vec()).unwrap());
        assert_eq!([text(&[2.0]), text(&[1.0, 2.0, 3.0])], ["", "50.00"]);
    }

    #[test]
    fn one_delay_changes_neither_median_nor_deviation_much() {
        let mut samples: Vec<f64> = (0..21).map(|n| 1.0 + 1e-3 * f64::from(n % 5)).collect();
        let calm = summary(&samples).unwrap();
        samples[7] = 50.0;
        let disturbed = summary(&samples).unwrap();
        assert!((disturbed.median_s - calm.median_s).abs() <= 1e-3);
        assert!(deviation(&disturbed) < 2e-3 && disturbed.p95_s < 1.01);
    }

    #[test]
    fn a_median_that_is_no_time_never_converges() {
        assert_eq!(deviation(&summary(&[-1.0, 0.0, 1.0]).unwrap()), f64::INFINITY);
    }
}
