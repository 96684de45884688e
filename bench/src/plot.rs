//! Pictures as SVG text: lines over a logarithmic axis, stacked bars. Making one needs no font; the
//! viewer shows it in its sans-serif font.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::Done;

/// Width and height.
const SIZE: (u32, u32) = (960, 540);

/// A curve: its name and its points.
pub type Series = (String, Vec<(f64, f64)>);

/// Appends a point to the curve of this name, which begins with it if there is none yet.
pub fn add_point(all: &mut Vec<Series>, name: String, point: (f64, f64)) {
    match all.iter_mut().find(|(other, _)| *other == name) {
        Some((_, points)) => points.push(point),
        None => all.push((name, vec![point])),
    }
}

/// A picture of curves.
#[derive(Clone, Debug)]
pub struct Lines {
    /// Above it.
    pub title: String,
    /// Below the horizontal axis, which is logarithmic to base 2.
    pub x: String,
    /// Beside the vertical axis, which begins at 0.
    pub y: String,
    /// The curves; points with a coordinate that is not finite are left out.
    pub series: Vec<Series>,
    /// Dashed horizontal lines: names and heights.
    pub limits: Vec<(String, f64)>,
}

/// A picture of stacked bars.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Above it.
    pub title: String,
    /// Below the horizontal axis.
    pub x: String,
    /// The parts' names, in the order they are stacked.
    pub parts: Vec<String>,
    /// The bars from above: names and one length a part.
    pub bars: Vec<(String, Vec<f64>)>,
}

impl Lines {
    /// The picture.
    ///
    /// # Errors
    /// No point to draw.
    pub fn svg(&self) -> Done<String> {
        let series: Vec<Series> = (self.series.iter())
            .map(|(name, points)| {
                let drawable =
                    |&(x, y): &(f64, f64)| (x > 0.0 && y.is_finite()).then(|| (x.log2(), y));
                (name.clone(), points.iter().filter_map(drawable).collect())
            })
            .collect();
        let points = || series.iter().flat_map(|(_, points)| points);
        let (left, right) = extent(points().map(|p| p.0)).ok_or("a plot without points")?;
        let heights = points().map(|p| p.1);
        let top = extent(heights.chain(self.limits.iter().map(|l| l.1)));
        let top = top.map_or(1.0, |(_, top)| top).max(f64::MIN_POSITIVE) * 1.08;
        let right = right.max(left + 1.0);
        draw(|area| {
            let mut chart = self.axes(area, (left, right), top)?;
            self.draw_limits(&mut chart, (left, right), top)?;
            for (index, (name, points)) in series.iter().enumerate() {
                let color = Palette99::pick(index).to_rgba();
                chart
                    .draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?
                    .label(name)
                    .legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
                    });
                let dots = points.iter().map(|&p| Circle::new(p, 3, color.filled()));
                chart.draw_series(dots)?;
            }
            draw_legend(&mut chart)
        })
    }

    /// The empty chart; the names of the curves have room right of them.
    fn axes<'a>(
        &self,
        area: &Area<'a>,
        (left, right): (f64, f64),
        top: f64,
    ) -> Result<Chart<'a>, Failure<'a>> {
        let names = 0.32 * (right - left);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 22))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(70)
            .build_cartesian_2d(left - 0.1..right + 0.1 + names, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&|x| {
                if *x <= right + 0.1 {
                    power_of_two(*x)
                } else {
                    String::new()
                }
            })
            .y_label_formatter(&|y| number(*y))
            .x_labels(((right - left + names) as usize + 2).max(6))
            .light_line_style(WHITE.mix(0.0))
            .label_style(("sans-serif", 15))
            .draw()?;
        Ok(chart)
    }

    /// The dashed lines, each with its name above it; the names of two limits at one height stand
    /// side by side.
    fn draw_limits<'a>(
        &self,
        chart: &mut Chart<'a>,
        (left, right): (f64, f64),
        top: f64,
    ) -> Drawn<'a> {
        for (index, (name, height)) in self.limits.iter().enumerate() {
            let style = BLACK.mix(0.6).stroke_width(1);
            let ends = [(left - 0.1, *height), (right + 0.1, *height)];
            chart.draw_series(DashedLineSeries::new(ends, 6, 5, style))?;
            let place = (left + 0.02 + 0.9 * index as f64, *height + top * 0.035);
            let text = Text::new(name.clone(), place, ("sans-serif", 14));
            chart.draw_series([text])?;
        }
        Ok(())
    }
}

impl Bars {
    /// The picture.
    ///
    /// # Errors
    /// No bar to draw.
    pub fn svg(&self) -> Done<String> {
        let longest = self.bars.iter().map(|(_, parts)| parts.iter().sum::<f64>());
        let (_, right) = extent(longest).ok_or("a plot without bars")?;
        // Room for the names of the parts, right of the bars.
        let right = right.max(f64::MIN_POSITIVE) * 1.25;
        let count = self.bars.len() as f64;
        // A slot of height 1 for every bar, the first on top.
        draw(|area| {
            let mut chart = ChartBuilder::on(area)
                .caption(&self.title, ("sans-serif", 22))
                .margin(14)
                .x_label_area_size(46)
                .y_label_area_size(150)
                .build_cartesian_2d(0.0..right, 0.0..count)?;
            chart
                .configure_mesh()
                .x_desc(&self.x)
                .x_label_formatter(&|x| number(*x))
                .disable_y_mesh()
                .y_labels(0)
                .light_line_style(WHITE.mix(0.0))
                .label_style(("sans-serif", 15))
                .draw()?;
            for (part, name) in self.parts.iter().enumerate() {
                let color = Palette99::pick(part).to_rgba();
                let bars = self.bars.iter().enumerate().map(|(index, (_, lengths))| {
                    let from: f64 = lengths.iter().take(part).sum();
                    let to = from + lengths.get(part).copied().unwrap_or(0.0);
                    let below = count - 1.0 - index as f64;
                    Rectangle::new([(from, below + 0.2), (to, below + 0.8)], color.filled())
                });
                chart.draw_series(bars)?.label(name).legend(move |(x, y)| {
                    Rectangle::new([(x, y - 6), (x + 12, y + 6)], color.filled())
                });
            }
            draw_legend(&mut chart)?;
            for (index, (name, _)) in self.bars.iter().enumerate() {
                let (_, y) = chart.backend_coord(&(0.0, count - 0.5 - index as f64));
                area.draw(&Text::new(name.clone(), (16, y - 8), ("sans-serif", 15)))?;
            }
            Ok(())
        })
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;
type Drawn<'a> = Result<(), Failure<'a>>;

/// The names of the curves or parts, in the upper right corner.
fn draw_legend<'a>(chart: &mut Chart<'a>) -> Drawn<'a> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()
}

fn draw(picture: impl for<'a> Fn(&Area<'a>) -> Drawn<'a>) -> Done<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)
            .and_then(|()| picture(&area))
            .and_then(|()| area.present())
            .map_err(|error| format!("a plot: {error}"))?;
    }
    Ok(svg)
}

/// The smallest and the largest of the values.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |so_far, x| match so_far {
        None => Some((x, x)),
        Some((low, high)) => Some((x.min(low), x.max(high))),
    })
}

/// A tick of the logarithmic axis; only whole powers have a name.
fn power_of_two(x: f64) -> String {
    if (x - x.round()).abs() < 1e-6 {
        number(x.round().exp2())
    } else {
        String::new()
    }
}

/// A number in as few digits as a tick needs.
fn number(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 || a.fract() == 0.0 => format!("{x:.0}"),
        a if a >= 1.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(points: Vec<(f64, f64)>) -> Lines {
        Lines {
            title: "Decode & <more>".into(),
            x: "branches".into(),
            y: "tokens/s".into(),
            series: vec![("bf16".into(), points)],
            limits: vec![("peak".into(), 50.0)],
        }
    }

    #[test]
    fn curves_are_drawn() {
        let svg = lines(vec![
            (1.0, 10.0),
            (4.0, 30.0),
            (16.0, 40.0),
            (64.0, f64::NAN),
        ])
        .svg();
        let svg = svg.expect("points");
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        for text in [
            "branches",
            "tokens/s",
            "bf16",
            "peak",
            "Decode &amp; &lt;more&gt;",
        ] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
        // Three dots of the curve; the fourth point is not finite.
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn one_point_is_enough_and_none_is_an_error() {
        assert!(lines(vec![(8.0, 3.0)]).svg().is_ok());
        assert_eq!(lines(vec![]).svg(), Err("a plot without points".into()));
    }

    #[test]
    fn bars_are_stacked() {
        let bars = Bars {
            title: "Where time went".into(),
            x: "seconds".into(),
            parts: vec!["linear".into(), "attention".into()],
            bars: vec![
                ("policy decode".into(), vec![2.0, 1.0]),
                ("PRM prefill".into(), vec![0.5, 0.0]),
            ],
        };
        let svg = bars.svg().expect("bars");
        for text in ["policy decode", "PRM prefill", "linear", "attention"] {
            assert!(svg.contains(text), "no {text}");
        }
    }

    #[test]
    fn ticks_are_short() {
        for (x, text) in [
            (0.25, "0.25"),
            (2.5, "2.5"),
            (3.0, "3"),
            (1234.5, "1234"),
            (0.0, "0"),
        ] {
            assert_eq!(number(x), text);
        }
        assert_eq!(
            (power_of_two(5.0), power_of_two(5.5)),
            ("32".into(), String::new())
        );
    }
}
