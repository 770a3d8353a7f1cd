// Runs before the first paint: the theme that was chosen here before, so that nothing flashes. Everything else of it is in lib/theme.ts.
const chosen = localStorage.getItem("semper-theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset["theme"] = chosen;
