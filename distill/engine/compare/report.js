// Shows only the tasks that contain what is typed.
const box = document.getElementById("filter"), shown = document.getElementById("shown");
const tasks = [...document.querySelectorAll("details")].map((task) => [task, task.textContent.toLowerCase()]);
box.addEventListener("input", () => {
  const wanted = box.value.toLowerCase();
  let count = 0;
  for (const [task, text] of tasks) count += !(task.hidden = !text.includes(wanted));
  shown.textContent = `${count} of ${tasks.length} tasks`;
});
