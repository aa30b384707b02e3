// Keeps the page up to date. Text that somebody has selected, and the focus, stay.
const main = document.getElementById("main");
const stale = document.getElementById("stale");
const events = new EventSource("events");
let since = null;
events.onmessage = (event) => {
	if (since !== null) {
		since = null;
		stale.textContent = "";
	}
	const selected = document.getSelection();
	if (selected !== null && !selected.isCollapsed) return;
	const scrolls = [...main.querySelectorAll(".scroll")].map((e) => [e.scrollLeft, e === document.activeElement]);
	main.innerHTML = event.data;
	main.querySelectorAll(".scroll").forEach((e, i) => {
		if (scrolls[i] === undefined) return;
		e.scrollLeft = scrolls[i][0];
		if (scrolls[i][1]) e.focus();
	});
};
events.onerror = () => {
	if (since !== null) return;
	since = new Date();
	stale.textContent = "The daemon does not answer since " + since.toLocaleTimeString() + "; what you see is from before.";
};
