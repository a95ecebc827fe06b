//! What the marks and colours mean.
//!
//! Owns: the style of the picture, and its legend.

use core::fmt::Write as _;

/// The legend needs this much room.
pub(super) const WIDTH: i64 = 1090;

pub(super) const STYLE: &str = "<style>
.title{font-size:19px;font-weight:700;fill:#101828}
.sub{font-size:11px;fill:#667085}
.head{font-size:12px;font-weight:700;fill:#ffffff;text-anchor:middle}
.time{font-size:9px;fill:#98a2b3;text-anchor:end}
line.gap{stroke:#e4e7ec;stroke-dasharray:2 5}
text.gap{font-size:9px;font-style:italic;fill:#98a2b3;text-anchor:end}
.key{font-size:11px;fill:#344054}
.up{stroke-width:3}
.down{stroke:#d0d5dd;stroke-width:2;stroke-dasharray:2 5}
.campaign{fill:#ffffff;stroke:#667085;stroke-width:1.5;stroke-dasharray:3 2}
.pause{fill:#475467;fill-opacity:0.35}
.write{fill:#98a2b3}
.write.lost{fill:#d92d20}
.write.open{fill:#f79009}
.way{stroke-width:1.3;stroke-opacity:0.85}
.way.short{stroke-dasharray:4 3}
.way.held{stroke-dasharray:7 4}
.lost{stroke:#d92d20;stroke-width:2;fill:none}
.cut{stroke:#d92d20;stroke-width:2.5}
.hold{fill:#ffffff;stroke:#b54708;stroke-width:1.6}
.crash{stroke:#d92d20;stroke-width:3;fill:none}
.start{fill:#12b76a;stroke:#ffffff;stroke-width:1.5}
.pausing{fill:#475467}
.persist{fill:#ffffff;stroke:#667085;stroke-width:1.3}
.durable{fill:#667085;stroke:#667085;stroke-width:1.3}
.apply{fill:#101828}
.diamond{stroke:#101828;stroke-width:1.3}
.tick{stroke:#98a2b3;stroke-width:1}
line.note{stroke:#b54708;stroke-width:1;stroke-opacity:0.55}
text.note{font-size:10px;font-style:italic;fill:#b54708;text-anchor:end;stroke:#ffffff;stroke-width:3px;paint-order:stroke}
.label{font-size:10px;stroke:#ffffff;stroke-width:3px;stroke-linejoin:round;paint-order:stroke}
text.label.crash{fill:#b42318;font-weight:700}
text.label.start{fill:#027a48;font-weight:700}
text.label.pausing{fill:#475467}
text.label.persist{fill:#98a2b3}
text.label.role{fill:#475467;font-style:italic}
text.label.applied{fill:#344054}
text.label.client{fill:#101828;font-weight:700}
.pill{font-size:10px;font-weight:700;fill:#ffffff}
.quiet{opacity:0.22}
.quiet .way{stroke-width:0.8}
.event:hover .label{font-weight:700}
.event:hover .way{stroke-width:3}
</style>";

/// A mark and its meaning.
const MARKS: [(&str, &str); 12] = [
    ("<circle class=\"start\" cx=\"6\" cy=\"0\" r=\"6\"/>", "starts"),
    ("<path class=\"crash\" d=\"M0 -6 L12 6 M12 -6 L0 6\"/>", "crashes"),
    ("<rect class=\"pause\" x=\"0\" y=\"-7\" width=\"13\" height=\"14\"/>", "stands still"),
    ("<line x1=\"6\" x2=\"6\" y1=\"-7\" y2=\"7\" class=\"down\"/>", "down"),
    ("<rect class=\"campaign\" x=\"2\" y=\"-7\" width=\"8\" height=\"14\"/>", "campaigns"),
    (
        "<rect x=\"-1\" y=\"-7\" width=\"14\" height=\"14\" rx=\"4\" fill=\"#1570ef\" \
         fill-opacity=\"0.16\"/><rect x=\"4\" y=\"-7\" width=\"5\" height=\"14\" fill=\"#1570ef\"/>",
        "leads",
    ),
    (
        "<path class=\"diamond\" fill=\"#1570ef\" d=\"M6 -6 L12 0 L6 6 L0 0Z\"/>",
        "a client's commands",
    ),
    ("<rect class=\"persist\" x=\"2\" y=\"-6\" width=\"8\" height=\"8\"/>", "given to the disk"),
    ("<rect class=\"durable\" x=\"2\" y=\"-6\" width=\"8\" height=\"8\"/>", "durable"),
    ("<path class=\"lost\" d=\"M2 -4 L10 4 M10 -4 L2 4\"/>", "lost"),
    ("<line class=\"cut\" x1=\"6\" x2=\"6\" y1=\"-6\" y2=\"6\"/>", "met a cut"),
    ("<circle class=\"hold\" cx=\"6\" cy=\"0\" r=\"4\"/>", "kept back"),
];

/// Draws the legend: marks in one row, ballots in the next.
pub(super) fn draw(out: &mut String, ballots: &[(String, String)]) {
    let mut x = 24;
    for (mark, meaning) in MARKS {
        let _ = writeln!(
            out,
            "<g transform=\"translate({x} 86)\">{mark}<text class=\"key\" x=\"19\" y=\"4\">\
             {meaning}</text></g>"
        );
        x += 34 + meaning.len() as i64 * 6;
    }
    let _ = writeln!(out, "<text class=\"key\" x=\"24\" y=\"124\">ballots</text>");
    let mut x = 84;
    for (ballot, colour) in ballots {
        if x > WIDTH - 90 {
            let _ = writeln!(out, "<text class=\"key\" x=\"{x}\" y=\"124\">and more</text>");
            break;
        }
        let width = ballot.len() as i64 * 7 + 16;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"111\" width=\"{width}\" height=\"18\" rx=\"9\" fill=\"{colour}\"/>\
             <text class=\"head\" x=\"{}\" y=\"124\">{ballot}</text>",
            x + width / 2
        );
        x += width + 8;
    }
}
