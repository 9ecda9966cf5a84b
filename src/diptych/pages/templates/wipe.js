// Two pictures on each other, the upper one cut at a slider or where the pointer is drawn over them.
(() => {
  "use strict";
  for (const copy of document.querySelectorAll("img[data-copy]")) { // embedded once, shown twice
    copy.src = document.querySelector(`img[data-name="${CSS.escape(copy.dataset.copy)}"]`).src;
  }
  const cut = (wipe, percent) => wipe.style.setProperty("--cut", `${percent}%`);
  document.addEventListener("input", (event) => {
    if (event.target.matches(".wipe > input")) cut(event.target.parentElement, event.target.value);
  });
  for (const kind of ["pointerdown", "pointermove"]) {
    document.addEventListener(kind, (event) => {
      const pictures = event.target.closest?.(".wipe > div");
      if (!pictures || !event.buttons) return;
      const box = pictures.getBoundingClientRect();
      const percent = Math.max(0, Math.min(100, (100 * (event.clientX - box.left)) / box.width));
      pictures.nextElementSibling.value = percent;
      cut(pictures.parentElement, percent);
      event.preventDefault();
    });
  }
})();
