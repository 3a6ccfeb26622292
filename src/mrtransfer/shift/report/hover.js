for (const root of document.querySelectorAll(".maps")) {
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const tip = root.querySelector(".tip");
  const picture = tip.querySelector("i");
  const rings = [...root.querySelectorAll("svg[data-map]")].map((svg) => [svg.dataset.map, svg.querySelector("circle")]);
  const hide = () => {
    tip.hidden = true;
    for (const [, ring] of rings) ring.setAttribute("r", 0);
  };
  const nearest = (places, x, y) => {
    let best = -1, least = 16;
    places.forEach(([a, b], index) => {
      const apart = (a - x) ** 2 + (b - y) ** 2;
      if (apart < least) [best, least] = [index, apart];
    });
    return best;
  };
  const show = (index, event) => {
    for (const [map, ring] of rings) {
      ring.setAttribute("cx", data.places[map][index][0]);
      ring.setAttribute("cy", data.places[map][index][1]);
      ring.setAttribute("r", 2.6);
    }
    const [domain, subject, sample, label, scanner] = data.slices[index];
    const number = data.pictures[index];
    picture.hidden = number === null;
    if (number !== null) {
      const right = number % data.across, down = Math.floor(number / data.across);
      picture.style.backgroundPosition = `-${right * data.width}px -${down * data.side}px`;
    }
    tip.querySelector("b").textContent = domain;
    tip.querySelector("span").textContent =
      [label, scanner && `scanner ${scanner}`, subject, sample].filter(Boolean).join(" · ");
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 16 + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 12}px`;
  };
  for (const svg of root.querySelectorAll("svg[data-map]")) {
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * 100, y = ((event.clientY - box.top) / box.height) * 100;
      const index = nearest(data.places[svg.dataset.map], x, y);
      if (index < 0) hide();
      else show(index, event);
    });
    svg.addEventListener("pointerleave", hide);
  }
}
