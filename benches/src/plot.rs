//! The plot: the duration of a boot, an entry and a stop against the number of running subhosts.

use crate::many::Many;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::time::Duration;

/// A line of the plot: its name, its colour, and the duration that it shows.
type Line = (&'static str, RGBColor, fn(&Many) -> Duration);

const LINES: [Line; 4] = [
    ("overlay-boot", RGBColor(31, 111, 235), |many| many.boot[0]),
    ("overlay-stop", RGBColor(209, 36, 47), |many| many.stop[0]),
    ("overlay-go true", RGBColor(26, 127, 55), |many| {
        many.enter[0]
    }),
    ("floor, boot", RGBColor(119, 119, 119), |many| many.boot[1]),
];

/// The font of all texts: its name and size.
const FONT: (&str, i32) = ("sans-serif", 15);

/// Draws boot, entry and stop of overlay-boot, and the boot of the floor.
///
/// Returns the text of an SVG file. Fails if there is nothing to draw.
pub fn plot(many: &[Many]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, many).map_err(|error| anyhow!("draw the plot: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, many: &[Many]) -> Result<(), Box<dyn std::error::Error>> {
    let most = LINES
        .iter()
        .flat_map(|(_, _, time)| many.iter().map(|many| milliseconds(time(many))))
        .fold(1.0, f64::max);
    let largest = many.iter().map(|many| many.number).max().unwrap_or(1);
    let root = SVGBackend::with_string(svg, (640, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 48)
        .set_label_area_size(LabelAreaPosition::Bottom, 40)
        .build_cartesian_2d(0..largest, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("subhosts that run already")
        .y_desc("milliseconds")
        .label_style(FONT)
        .draw()?;
    for (name, colour, time) in LINES {
        let points = many
            .iter()
            .map(|many| (many.number, milliseconds(time(many))));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .label_font(FONT)
        .draw()?;
    root.present()?;
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plot_has_titles_and_each_line_once() {
        let time = |number| {
            [
                Duration::from_micros(9000 + number),
                Duration::from_micros(4000),
            ]
        };
        let many = [1, 10, 100, 1000].map(|number| Many {
            number,
            boot: time(number as u64),
            enter: time(2),
            stop: time(3),
            list: Duration::ZERO,
            list_all: Duration::ZERO,
            memory: [0.0; 3],
        });
        let svg = plot(&many).unwrap();
        let texts = LINES.map(|(name, ..)| name);
        for text in texts
            .iter()
            .chain(&["milliseconds", "subhosts that run already"])
        {
            assert_eq!(svg.matches(text).count(), 1, "{text}: {svg}");
        }
    }
}
