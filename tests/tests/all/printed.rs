//! README.md, docs/demo.md and overlay-boot(8): the commands print the output that the pages show.

use crate::pages::{Typist, are_like, steps, unescaped};
use end_to_end::{World, bin, is_root_or_tell, scripts};

/// The fenced block that follows `heading` in a page.
fn fenced<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, section) = page.split_once(heading).expect(heading);
    let (_, block) = section.split_once("```sh\n").expect("a block");
    block.split_once("```").expect("the end of the block").0
}

#[test]
fn readme_examples_work_as_printed() {
    if !is_root_or_tell("LOWER=/") {
        return;
    }
    let page = include_str!("../../../README.md");
    assert!(steps(page).len() > 4, "README.md has a session");
    let world = World::new();
    let before = world.snapshot();
    world.ok("mkdir here; mount -t tmpfs tmpfs /opt");
    let mut typist = Typist::new(&world);
    typist.enter("cd here");
    for step in steps(page) {
        let (output, _) = typist.enter(&step.command);
        let lines: Vec<&str> = output.lines().collect();
        assert!(
            are_like(&step.output, &lines),
            "{step:#?} printed {lines:#?}"
        );
    }
    drop(typist);

    let quick = fenced(page, "\n## Quick start\n");
    let printed = world.ok(&format!("set -e\n{quick}"));
    assert!(printed.contains("1 received"), "{printed}");

    let configuration = fenced(page, "\n## Configuration\n");
    world.ok("ip link add br0 type bridge; mkdir -p /opt/shown; cd /opt/shown; mkdir root work live; chmod 700 .");
    // The example names directories that this machine does not have.
    let shown = configuration.replace("/srv/", "/opt/");
    world.ok("mkdir -p /opt/debian13 /opt/www");
    world.ok(&format!("cat >/opt/shown/web.conf <<'END'\n{shown}END"));
    assert_eq!(world.ok("ob-conf --check /opt/shown/web.conf"), "");

    world.ok("ip link del br0; umount /opt; rm -rf here");
    world.until_same(&before);
}

/// Replaces every number in `text` with 0, and drops the lines that depend on ifupdown and control
/// groups.
fn without_numbers(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.contains("ifup") || line.starts_with("{\"BASE\"") {
            continue;
        }
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            let word = word.split_once("/tmp.").map_or(word, |(parent, _)| parent);
            let mut shown = String::new();
            for letter in word.chars() {
                let digit = letter.is_ascii_digit();
                if !digit {
                    shown.push(letter);
                } else if !shown.ends_with('0') {
                    shown.push('0');
                }
            }
            words.push(shown);
        }
        lines.push(words.join(" "));
    }
    lines
}

#[test]
fn demo_page_shows_the_output_of_the_demo() {
    if !is_root_or_tell("LOWER=/") {
        return;
    }
    let page = include_str!("../../../docs/demo.md");
    let (_, shown) = page.split_once("```console\n").expect("a transcript");
    let (shown, _) = shown.split_once("```").expect("its end");
    let world = World::new();
    let before = world.snapshot();
    let demo = scripts().join("demo");
    let printed = world.ok(&format!("{} {} 2>&1", demo.display(), bin().display()));
    assert_eq!(
        without_numbers(&printed[1..]).join("\n"),
        without_numbers(shown).join("\n"),
        "docs/demo.md is old: run scripts/demo and copy the output"
    );
    world.until_same(&before);
}

/// Shell lines that provoke the refusals of overlay-boot(8), in the order of the page. They run in
/// the directory of a subhost mta.
const REFUSALS: &[&str] = &[
    "rm mta.conf",
    "sed -i /BASE/d mta.conf",
    "echo CABLES=br0 >>mta.conf",
    "rmdir root",
    "mount -t tmpfs tmpfs live",
    "mkdir live2; sed '$aLIVE=live2' mta.conf >web.conf; overlay-boot web.conf",
    "chmod 755 .; echo PROTECT=strict >>mta.conf",
    "echo CABLES=br0= >>mta.conf",
    "overlay-boot mta.conf",
    "mkdir empty; printf '%s\\n' LOWER=empty UPPER=empty >>mta.conf",
];

#[test]
fn refusals_in_overlay_boot_8_are_printed_as_shown() {
    if !is_root_or_tell("LOWER=/") {
        return;
    }
    let page = include_str!("../../../man/overlay-boot.8");
    let (_, section) = page.split_once("\n.Sh DIAGNOSTICS\n").expect("a section");
    let shown: Vec<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix(".It ").map(unescaped))
        .collect();
    assert_eq!(shown.len(), REFUSALS.len(), "{shown:?}");
    let world = World::new();
    let before = world.snapshot();
    for (shown, provoked) in shown.iter().zip(REFUSALS) {
        world.ok("mount -t tmpfs tmpfs /opt; mkdir -p /opt/subhost/mta; chmod 700 /opt/subhost/mta; cd /opt/subhost/mta; \
                  mkdir root work live; printf '%s\\n' BASE=. START=none >mta.conf");
        let line = format!("cd /opt/subhost/mta; {{ {provoked}\n}} && overlay-boot mta.conf");
        let refused = world.run(&line);
        assert_eq!(refused.status, 1, "{shown}: {refused:?}");
        assert_eq!(without_numbers(&refused.err), without_numbers(shown));
        world.ok("overlay-stop --all; umount -R /opt");
    }
    world.until_same(&before);
}
