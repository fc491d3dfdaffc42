// A slider shows the frame of its place; without this script the first frame stands still.
document.addEventListener("input", (event) => {
  const slider = event.target;
  const figure = slider.closest(".moving");
  if (!figure) return;
  const value = slider.dataset.values.split(" ")[slider.value];
  figure.querySelector(".frames").style.setProperty("--at", slider.value);
  figure.querySelector("output").textContent = value;
  slider.setAttribute("aria-valuetext", value);
});
