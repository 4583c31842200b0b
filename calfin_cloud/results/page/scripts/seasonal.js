// The mean year of a glacier: how far its front stands from the mean of the year around, month by month.
"use strict";

(() => {
  const EDGE = { left: 48, right: 8, top: 24, bottom: 22 };
  const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
  const svg = d3.select("#seasonal");

  function draw() {
    const months = atlas.state.data.seasonal, node = svg.node();
    node.parentElement.classList.toggle("blank", !months.length);
    const width = Math.max(node.clientWidth, 120), height = Math.max(node.clientHeight, 80);
    svg.attr("viewBox", `0 0 ${width} ${height}`).selectAll("*").remove();
    svg.append("text").attr("class", "head").attr("x", EDGE.left).attr("y", 13).text("Mean year (m)");
    if (!months.length) {
      svg.append("text").attr("class", "nothing").attr("x", width / 2).attr("y", height / 2 + 8).attr("text-anchor", "middle").text("needs more fronts per year");
      atlas.get("seasonalText").textContent = "No mean year: too few fronts in a year.";
      return;
    }
    const x = d3.scaleBand(d3.range(1, 13), [EDGE.left, width - EDGE.right]).padding(0.25);
    const ends = [d3.min(months, (m) => Math.min(0, m[1] - 2 * (m[2] ?? 0))), d3.max(months, (m) => Math.max(0, m[1] + 2 * (m[2] ?? 0)))];
    const y = d3.scaleLinear(ends, [height - EDGE.bottom, EDGE.top]).nice(3);
    const axis = svg.append("g").attr("class", "axis");
    axis.append("g").attr("transform", `translate(0,${height - EDGE.bottom})`).call(d3.axisBottom(x).tickFormat((m) => MONTHS[m - 1][0]).tickSize(0).tickPadding(6));
    axis.append("g").attr("transform", `translate(${EDGE.left},0)`).call(d3.axisLeft(y).ticks(3).tickSize(-(width - EDGE.left - EDGE.right)));
    const bars = svg.selectAll(".month").data(months).join("g").attr("class", "month");
    bars.append("rect").attr("x", (m) => x(m[0])).attr("width", x.bandwidth()).attr("y", (m) => y(Math.max(0, m[1]))).attr("height", (m) => Math.max(1, Math.abs(y(m[1]) - y(0)))).attr("rx", 1.5);
    bars.filter((m) => m[2]).append("path").attr("d", (m) => { const c = x(m[0]) + x.bandwidth() / 2; return `M${c} ${y(m[1] - 2 * m[2])}V${y(m[1] + 2 * m[2])}`; });
    bars.on("pointermove", (event, m) => atlas.showTip(event.clientX, event.clientY, [MONTHS[m[0] - 1], `${atlas.length(m[1], { sign: true })}${m[2] ? ` ± ${Math.round(2 * m[2])} m` : ""}`])).on("pointerleave", atlas.hideTip);
    const most = d3.greatest(months, (m) => m[1]), least = d3.least(months, (m) => m[1]);
    atlas.get("seasonalText").textContent = `Mean year: farthest out in ${MONTHS[most[0] - 1]} (${atlas.length(most[1], { sign: true })}), farthest back in ${MONTHS[least[0] - 1]} (${atlas.length(least[1], { sign: true })}).`;
  }

  atlas.showSeasonal = draw;
  const again = () => { if (atlas.state.data) draw(); };
  atlas.on("theme", again);
  new ResizeObserver(again).observe(svg.node().parentElement);
})();
