"use strict";
(() => {
  const data = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.documentElement;

  // Plots. Their colours are names of the style sheet's; nothing but a colour is looked up there.
  const figures = data("plots");
  const places = [...document.querySelectorAll("[data-plot]")];
  const colour = (text, styles) => {
    const name = typeof text === "string" && /^var\((--[\w-]+)\)$/.exec(text);
    return name ? styles.getPropertyValue(name[1]).trim() : text;
  };
  const themed = (value, styles, isColour) => {
    if (Array.isArray(value)) return value.map((item) => themed(item, styles, isColour));
    if (value === null || typeof value !== "object") return isColour ? colour(value, styles) : value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, themed(item, styles, /color(scale)?$/.test(key))]),
    );
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const look = () => (root.classList.contains("printing") ? "paper" : dark.matches ? "dark" : "light");
  const draw = (place) => {
    const { data, layout } = themed(figures[place.dataset.plot], getComputedStyle(root), false);
    // Where a finger scrolls the page it must not draw a box in a plot.
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
    Plotly.react(place, data, layout, {
      responsive: true, displaylogo: false, scrollZoom: false,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    });
    if (place.dataset.look) Plotly.Plots.resize(place);
    else place.on("plotly_click", ({ points }) => {
      const chosen = points.find(({ data }) => data.customdata);
      if (chosen) select(chosen.data.customdata[0], true);
    });
    place.dataset.look = look();
  };
  // What is hidden has no width: it is drawn when its panel is shown.
  const drawShown = () =>
    places.filter((place) => place.offsetParent && place.dataset.look !== look()).forEach(draw);

  // Bundles: one panel at a time.
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const panels = tabs.map((tab) => document.getElementById(tab.getAttribute("aria-controls")));
  const select = (index, isAsked) => {
    tabs.forEach((tab, each) => {
      tab.setAttribute("aria-selected", String(each === index));
      tab.tabIndex = each === index ? 0 : -1;
      panels[each].hidden = each !== index;
    });
    drawShown();
    if (isAsked) document.getElementById("bundles").scrollIntoView();
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => select(index, false));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (!step) return;
      const next = (index + step + tabs.length) % tabs.length;
      select(next, false);
      tabs[next].focus();
    });
  });

  // On paper all panels are shown, and the plots are dark on white.
  let selected = 0;
  const print = () => {
    if (root.classList.contains("printing")) return;
    selected = panels.findIndex((panel) => !panel.hidden);
    root.classList.add("printing");
    panels.forEach((panel) => { panel.hidden = false; });
    drawShown();
  };
  const printed = () => {
    root.classList.remove("printing");
    if (tabs.length) select(selected, false);
    drawShown();
  };
  addEventListener("beforeprint", print);
  addEventListener("afterprint", printed);
  matchMedia("print").addEventListener("change", ({ matches }) => (matches ? print() : printed()));
  dark.addEventListener("change", drawShown);

  if (tabs.length) select(Math.max(0, panels.findIndex((panel) => `#${panel.id}` === location.hash)), false);
  drawShown();

  // The player: the left video leads, the right one follows.
  const player = document.getElementById("player");
  if (!player) return;
  const videos = data("videos");
  const part = (id) => document.getElementById(id);
  const [left, right, stage, play, time, wipe] =
    ["video-left", "video-right", "stage", "play", "time", "wipe"].map(part);
  const frame = 1 / Number(player.dataset.fps);

  const show = () => {
    const at = left.currentTime;
    time.max = left.duration || 1;
    time.value = at;
    const number = Math.round(at / frame), last = Math.round((left.duration || 0) / frame) - 1;
    part("frame").textContent = last > 0 ? `frame ${Math.min(number, last)} of ${last}` : "";
  };
  const seek = (seconds) => {
    const end = Math.max(0, (left.duration || 0) - frame / 2);
    left.currentTime = right.currentTime = Math.min(Math.max(0, seconds), end);
    show();
  };
  const pause = () => { left.pause(); right.pause(); };
  const follow = () => {
    if (Math.abs(right.currentTime - left.currentTime) > frame / 2) right.currentTime = left.currentTime;
    show();
    if (!left.paused) requestAnimationFrame(follow);
  };
  const load = () => {
    for (const [video, owner] of [[left, part("left")], [right, part("right")]]) {
      video.src = videos[owner.value][part("clip").value] ?? "";
      video.setAttribute("aria-label", owner.selectedOptions[0].textContent);
    }
    rate();
  };
  const rate = () => { left.playbackRate = right.playbackRate = part("slow").checked ? 0.25 : 1; };
  const meet = (percent) => {
    wipe.value = percent;
    stage.style.setProperty("--wipe", `${wipe.value}%`);
  };

  ["clip", "left", "right"].forEach((id) => part(id).addEventListener("change", load));
  part("slow").addEventListener("change", rate);
  part("difference").addEventListener("change", ({ target }) => stage.classList.toggle("difference", target.checked));
  part("back").addEventListener("click", () => { pause(); seek((Math.round(left.currentTime / frame) - 1) * frame); });
  part("forward").addEventListener("click", () => { pause(); seek((Math.round(left.currentTime / frame) + 1) * frame); });
  play.addEventListener("click", () => {
    if (!left.paused) return pause();
    if (left.ended || left.currentTime >= left.duration - frame) seek(0);
    return Promise.all([left.play(), right.play()]).catch(pause);
  });
  time.addEventListener("input", () => { pause(); seek(Number(time.value)); });
  wipe.addEventListener("input", () => meet(wipe.value));
  stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    const box = stage.getBoundingClientRect();
    if (event.buttons || event.pointerType === "mouse") meet((100 * (event.clientX - box.left)) / box.width);
  });
  left.addEventListener("play", () => { play.textContent = "❚❚ Pause"; follow(); });
  left.addEventListener("pause", () => { play.textContent = "▶ Play"; });
  left.addEventListener("loadedmetadata", () =>
    stage.style.setProperty("--aspect", `${left.videoWidth / left.videoHeight}`));
  ["loadedmetadata", "seeked", "ended"].forEach((name) => left.addEventListener(name, show));
  load();
})();
