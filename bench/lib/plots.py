"""Growth rows as SVG pictures."""
import os
import statistics

COLOURS = {"Nexus": "#1f5fa8", "Redis": "#c0392b"}
STYLES = ("-", "--", ":")


def draw(row, data, directory):
    """One file a picture; -> their names."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = row.name  # the same data gives the same bytes
    from matplotlib import pyplot

    names = []
    for number, plot in enumerate(row.plots):
        figure, axes = pyplot.subplots(figsize=(6.4, 4))
        for curve in data["curves"]:
            _draw_curve(axes, curve, plot)
        axes.set_xlabel(row.x)
        axes.set_ylabel(plot.y)
        axes.set_title(row.title)
        xs = [point["x"] for curve in data["curves"] for point in curve["points"]]
        if min(xs) > 0:
            axes.set_xscale("log", base=2 if max(xs) <= 4096 else 10)
            axes.set_xticks(sorted(set(xs)), [f"{x:,.4g}" if x < 1e4 else f"{x:.0e}" for x in sorted(set(xs))],
                            rotation=45, fontsize=8)
            axes.minorticks_off()
        if plot.log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(True, alpha=0.3)
        axes.legend(fontsize=8)
        figure.tight_layout()
        name = f"{row.name}-{number + 1}.svg"
        figure.savefig(os.path.join(directory, name), metadata={"Date": None})
        pyplot.close(figure)
        names.append(name)
    return names


def _draw_curve(axes, curve, plot):
    for metric, style in zip(plot.metrics, STYLES):
        points = []
        for point in curve["points"]:
            values = [run["figures"][metric] for run in point["runs"] if metric in run["figures"]]
            if values:
                points.append((point["x"], statistics.median(values), min(values), max(values)))
        if not points:
            continue
        xs, middle, low, high = zip(*points)
        label = curve["label"] if len(plot.metrics) == 1 else f"{curve['label']}, {metric}"
        colour = COLOURS.get(curve["label"])
        axes.plot(xs, middle, style, marker="o", markersize=3, color=colour, label=label)
        axes.fill_between(xs, low, high, alpha=0.15, color=colour, linewidth=0)
