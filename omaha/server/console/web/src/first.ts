// Runs before all else, and before the first paint: sets the theme that was chosen here before, so that nothing flashes, and asks for what the view shows,
// so that the answers come while the rest of the console is loaded. Everything else of the theme is in lib/theme.ts.
import { ask } from "./api/early";
import { firstAsks } from "./lib/asks";

const chosen = localStorage.getItem("semper-theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset["theme"] = chosen;

firstAsks(location.pathname, new URLSearchParams(location.search), ask);
