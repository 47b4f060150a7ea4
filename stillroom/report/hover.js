// Shows values under the pointer. The page is complete without it: all values are also in the tables.
for (const chart of document.querySelectorAll("svg[data-hover]")) {
  const curves = JSON.parse(chart.dataset.hover);
  const view = chart.viewBox.baseVal;
  const append = (name, parent, style) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    node.setAttribute("class", style);
    return parent.appendChild(node);
  };
  const cursor = append("g", chart, "cursor");
  const rule = append("line", cursor, "rule");
  const labels = curves.map((curve) => [append("circle", cursor, "mark dot " + curve.role), append("text", cursor, "label halo strong " + curve.role)]);
  const title = append("text", cursor, "label halo");
  const hide = () => cursor.setAttribute("visibility", "hidden");
  const show = (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * view.width;
    const nearest = curves.map((curve) => curve.at.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best)));
    const closest = nearest.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
    if (Math.abs(closest[0] - x) > 30) return hide();
    cursor.setAttribute("visibility", "visible");
    rule.setAttribute("x1", closest[0]);
    rule.setAttribute("x2", closest[0]);
    rule.setAttribute("y1", 10);
    rule.setAttribute("y2", view.height - 26);
    const left = closest[0] > view.width * 0.6;
    const place = (text, y) => {
      text.setAttribute("x", closest[0] + (left ? -8 : 8));
      text.setAttribute("y", y);
      text.setAttribute("text-anchor", left ? "end" : "start");
    };
    place(title, 20);
    title.textContent = "step " + closest[2];
    let row = 0;
    nearest.forEach((point, index) => {
      const [dot, text] = labels[index];
      const far = Math.abs(point[0] - closest[0]) > 12;
      dot.setAttribute("visibility", far ? "hidden" : "inherit");
      text.setAttribute("visibility", far ? "hidden" : "inherit");
      if (far) return;
      dot.setAttribute("cx", point[0]);
      dot.setAttribute("cy", point[1]);
      dot.setAttribute("r", 3);
      place(text, 34 + 14 * row++);
      text.textContent = curves[index].name + " " + point[3];
    });
  };
  hide();
  chart.addEventListener("pointermove", show);
  chart.addEventListener("pointerleave", hide);
}
