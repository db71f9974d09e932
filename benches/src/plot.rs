//! The plot: the duration of a boot, an entry and a stop against the number of running subhosts.

use crate::many::Many;
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 310.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 520.0;

/// Draws boot, entry and stop of overlay-boot, and the boot of the floor.
pub fn plot(many: &[Many]) -> String {
    let lines: [(&str, &str, Vec<f64>); 4] = [
        ("overlay-boot", "#1f6feb", milliseconds(many, |m| m.boot[0])),
        ("overlay-stop", "#d1242f", milliseconds(many, |m| m.stop[0])),
        (
            "overlay-go true",
            "#1a7f37",
            milliseconds(many, |m| m.enter[0]),
        ),
        ("floor, boot", "#777777", milliseconds(many, |m| m.boot[1])),
    ];
    let all = lines.iter().flat_map(|(_, _, values)| values);
    let most = all.copied().fold(1.0, f64::max) * 1.1;
    let largest = many.iter().map(|m| m.number).max().unwrap_or(1);
    let x = |number: usize| LEFT + (RIGHT - LEFT) * ratio(number, largest);
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">Milliseconds, beside the subhosts that run already</text>\n\
         <path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#000000\"/>\n"
    );
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value:.1}</text>",
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    for m in many {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(m.number),
            BOTTOM + 18.0,
            m.number
        );
    }
    for (name, colour, values) in lines {
        let mut points = String::new();
        for (m, value) in many.iter().zip(&values) {
            let _ = write!(points, "{:.1},{:.1} ", x(m.number), y(*value));
        }
        let last = values.last().map_or(0.0, |value| y(*value));
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.trim_end()
        );
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            RIGHT + 8.0,
            last + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn milliseconds(many: &[Many], time: impl Fn(&Many) -> std::time::Duration) -> Vec<f64> {
    many.iter()
        .map(|m| time(m).as_secs_f64() * 1000.0)
        .collect()
}

fn ratio(part: usize, whole: usize) -> f64 {
    let number = |number| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    number(part) / number(whole)
}
