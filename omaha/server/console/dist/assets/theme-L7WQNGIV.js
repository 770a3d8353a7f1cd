var e=localStorage.getItem("semper-theme");(e==="light"||e==="dark")&&(document.documentElement.dataset.theme=e);
