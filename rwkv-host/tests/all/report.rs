//! The report of `rwkv validate`: what it says, that nothing in it comes from elsewhere or breaks
//! out, and that a browser shows it.

use std::{fs, path::Path, process::Command};

use crate::tool::{command, folder, rwkv};

/// Text that would end an element, an attribute, a comment or a script.
const HOSTILE: &str = r#"</td></table><script>document.title='broken'</script><!-- "'&lt;"#;

fn prompts() -> String {
    let hostile = serde_json::json!({ "prompt": HOSTILE, "generate": 9, "name": HOSTILE });
    format!("{{\"prompt\": \"X:1\\n\", \"generate\": 40, \"name\": \"a tune\"}}\n{hostile}\n")
}

/// The report of a validation with more options, and whether it found the device equal.
fn report(dir: &Path, more: &[&str]) -> (String, bool) {
    fs::write(dir.join("j"), prompts()).unwrap();
    let args = [&["validate", "x", "--prompts", "j", "--report", "r.html"], more].concat();
    let output = command(&args, dir).output().unwrap();
    (fs::read_to_string(dir.join("r.html")).unwrap(), output.status.success())
}

const FAULT: [&str; 2] = ["--sim-fault", "88@2:8:13:20"];

#[test]
fn a_report_has_the_verdict_and_the_pictures() {
    let dir = folder();
    let (page, equal) = report(dir.path(), &[]);
    assert!(equal && page.contains("Every bit is equal") && page.contains("class=\"is-equal\""));
    assert_eq!(page.matches("<svg class=\"strip\"").count(), 2);
    assert_eq!(page.matches("<figure class=\"chart\">").count(), 2, "device and host");
    assert!(page.contains("<dt>model</dt><dd><bdi>4 layers of 96, ffn 288, vocabulary 256"));

    let (page, equal) = report(dir.path(), &FAULT);
    assert!(!equal && page.contains("The device differs") && page.contains("is-different"));
    for said in [
        "1 of 2 prompts differ from the host",
        "layer 1, operation 8 of 18: wkv4 AttWkv4 (state); 1 of 288 values differ",
        "one bit of one value",
        "Digest of each section",
        "Digest of each operation of layer 1",
        "<title>layer 1: differs</title>",
        "<title>layer 0: equal</title>",
        "Values: 1 of 288 differ, by ",
        "differs at 0",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn a_report_is_one_file_and_no_text_breaks_out_of_it() {
    let dir = folder();
    for more in [&[][..], &FAULT] {
        let (page, _) = report(dir.path(), more);
        assert!(page.contains("&lt;/td&gt;&lt;/table&gt;&lt;script&gt;"));
        for foreign in ["<script", "http:", "https:", "<link", "<img", "@import", "url(", "<!--"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.chars().all(|c| !c.is_control() || c == '\n'));
        for element in ["section", "table", "tr", "td", "figure", "svg", "bdi", "div", "dl", "g"] {
            let opened = page.matches(&format!("<{element}>")).count()
                + page.matches(&format!("<{element} ")).count();
            let closed = page.matches(&format!("</{element}>")).count();
            assert_eq!(opened, closed, "{element}");
        }
    }
    let error = rwkv(dir.path(), &["validate", "x", "--report", "x"]).unwrap_err();
    assert!(error.contains("would take the place of the image"), "{error}");
}

/// A report of a trace, without the host's times, and with the trace in its place.
#[test]
fn a_report_on_a_trace_says_so() {
    let dir = folder();
    let dir = dir.path();
    rwkv(dir, &["trace", "x", "--prompt", "X:1", "-n", "9", "-o", "t"]).unwrap();
    rwkv(dir, &["validate", "x", "--golden", "t", "--report", "r.html"]).unwrap();
    let page = fs::read_to_string(dir.join("r.html")).unwrap();
    assert!(page.contains("had the digest of the golden trace"));
    assert_eq!(page.matches("<figure class=\"chart\">").count(), 1);
    let error = rwkv(dir, &["validate", "x", "--golden", "t", "--report", "t"]).unwrap_err();
    assert!(error.contains("would take the place of the trace"), "{error}");
}

#[test]
fn a_browser_shows_a_report() {
    let dir = folder();
    for (more, verdict, figures) in
        [(&[][..], "Every bit is equal", 2), (&FAULT, "The device differs", 5)]
    {
        report(dir.path(), more);
        let Some(page) = in_a_browser(dir.path(), &dir.path().join("r.html")) else { return };
        // As the browser understood it.
        let (_, verdict_on) = page.split_once("<h1 id=\"verdict\">").expect("a verdict");
        let (verdict_on, _) = verdict_on.split_once("</h1>").expect("its end");
        assert!(verdict_on.ends_with(verdict), "{verdict_on}");
        assert_eq!(page.matches("<svg class=\"strip\"").count(), 2);
        assert_eq!(page.matches("<figure").count(), figures);
        assert_eq!(page.matches("<table>").count(), 1);
        assert_eq!(page.matches("<tr>").count(), 3);
        assert!(!page.contains("<title>broken</title>") && !page.contains("<script"));
    }
}

/// The elements of a page in headless Chromium; `None` with a note where there is none.
fn in_a_browser(dir: &Path, page: &Path) -> Option<String> {
    let mut browser = Command::new("chromium");
    // It has no sandbox where it runs as root, and no shared memory in many containers.
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    browser.arg(format!("--user-data-dir={}", dir.join("profile").display()));
    browser.arg("--dump-dom").arg(format!("file://{}", page.display()));
    match browser.output() {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        Ok(output) => panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("skipped: chromium: {error}; install it with: apt-get install chromium");
            None
        }
    }
}
