//! What a page must and must not show.

use super::*;
use crate::report::samples::sample;

/// The row of a case.
fn row<'t>(page: &'t str, name: &str) -> &'t str {
    let rows = || page.split("<tr class=").skip(1);
    let found = rows().find(|row| row.contains(&format!("<th>{name}</th>")));
    found.unwrap_or_else(|| panic!("no row of {name}")).split("</tr>").next().expect("a row")
}

#[test]
fn each_status_is_shown_as_such_and_no_figure_is_made_up() -> Result<()> {
    let page = page(&[sample()])?;
    let failed = row(&page, "attention/strided f32 b1 h1 n1024 d64");
    assert!(failed.starts_with("\"failed\"") && failed.contains("FAILED: out of its bound"), "{failed}");
    let impossible = row(&page, "attention/window f32 b1 h1 n1048576 d64");
    assert!(impossible.starts_with("\"cannot-run\"") && impossible.contains("cannot run: q: need"));
    let interrupted = row(&page, "add f32 2048x1024");
    assert!(interrupted.starts_with("\"interrupted\"") && interrupted.contains(">interrupted<"));
    for row in [failed, impossible, interrupted] {
        assert_eq!(row.matches("<td").count(), 1, "{row}");
    }
    let unconverged = row(&page, "attention/bigbird f32 b1 h1 n4096 d64");
    assert!(unconverged.starts_with("\"unconverged\"") && unconverged.contains("30.80 ms"), "{unconverged}");
    for text in
        ["the run was not completed", "drift: a ceiling changed", "Small Example (gl)", "clocks disagree"]
    {
        assert!(page.contains(text), "{text}");
    }
    Ok(())
}

#[test]
fn every_picture_is_there_and_whole() -> Result<()> {
    let page = page(&[sample()])?;
    for name in ["fastest", "time", "memory", "roofline", "peak"] {
        let figures: Vec<_> = page.split(&format!("<figure class=\"{name}\">")).skip(1).collect();
        assert_eq!(figures.len(), 2, "{name}: of each adapter that could be used");
        for figure in figures {
            let figure = figure.split("</figure>").next().expect("an end");
            assert!(figure.contains("</svg>") && figure.contains("<text"), "{name}");
            assert!(!figure.contains("NaN") && !figure.contains("inf"), "{name}");
        }
    }
    // Two hollow marks: the unconverged case, in the roofline and by length.
    assert!(page.contains("fill=\"none\" stroke=\"#"));
    assert_eq!(page.matches("Fastest pattern by length (f32, 1 head, d 64): ").count(), 2);
    Ok(())
}

#[test]
fn what_a_record_says_is_text_and_nothing_comes_from_outside() -> Result<()> {
    let evil = "<script>alert('&\"')</script>";
    let mut record = sample();
    for text in
        [&mut record.version, &mut record.date, &mut record.suite, &mut record.host.cpu, &mut record.host.os]
    {
        *text = evil.into();
    }
    record.filter = Some(evil.into());
    record.models[0].name = evil.into();
    record.models[0].formula = evil.into();
    for adapter in &mut record.adapters {
        (adapter.name, adapter.driver, adapter.backend) = (evil.into(), evil.into(), evil.into());
        (adapter.features, adapter.no_timestamps) = (vec![evil.into()], Some(evil.into()));
        adapter
            .ceilings
            .iter_mut()
            .for_each(|ceiling| ceiling.why = ceiling.why.as_ref().map(|_| evil.into()));
        for case in &mut adapter.cases {
            case.name = evil.into();
            case.why = case.why.as_ref().map(|_| evil.into());
            case.dtype = evil.into();
            case.path = Some(evil.into());
            if case.shape.length() > 512 {
                case.pattern = case.pattern.as_ref().map(|_| evil.into());
                (case.score, case.score_text) = (Some(evil.into()), Some(evil.into()));
            }
        }
    }
    let page = page(&[record])?;
    assert!(!page.contains("<script"));
    assert!(page.matches("&lt;script&gt;").count() > 50);
    for outside in ["src=", "http:", "https:", "url(", "@import", "<link", "<script"] {
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
    }
    Ok(())
}

#[test]
fn nothing_measured_makes_a_page_too() -> Result<()> {
    let mut record = sample();
    record.adapters.truncate(1);
    record.adapters[0].ceilings.clear();
    for case in &mut record.adapters[0].cases {
        (case.hot, case.rates, case.status) = (None, None, Status::Interrupted);
    }
    let page = page(&[record])?;
    assert!(!page.contains("<svg") && page.contains("there is no plot by length"));
    Ok(())
}
