// Meshes to walk around, in plain WebGL 2. A canvas has its binary glTF (as infonerf.export.files.page_glb writes them)
// as data-glb, and directions of the same axes: data-up, and data-eye, from where it is seen first.
const VERTEX = `#version 300 es
in vec3 place, normal; in vec4 colour; uniform mat4 camera; out vec3 towards, linear;
void main() { gl_Position = camera * vec4(place, 1); towards = normal; linear = colour.rgb; }`;
const FRAGMENT = `#version 300 es
precision highp float; in vec3 towards, linear; uniform vec3 eye; uniform bool shape; out vec4 seen;
void main() {
  float facing = abs(dot(normalize(towards), eye));
  vec3 shown = mix(12.92 * linear, 1.055 * pow(linear, vec3(1. / 2.4)) - .055, step(.0031308, linear));
  seen = vec4(shape ? vec3(.2 + .65 * facing) : shown * (.8 + .2 * facing), 1);
}`;
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const scaled = (a, f) => a.map(x => x * f);
const plus = (...all) => [0, 1, 2].map(i => all.reduce((sum, a) => sum + a[i], 0));
const unit = a => scaled(a, 1 / (Math.sqrt(dot(a, a)) || 1));
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

function readGlb(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), words = new DataView(bytes.buffer);
  const size = words.getUint32(12, true), tree = JSON.parse(new TextDecoder().decode(bytes.subarray(20, 20 + size)));
  const part = tree.meshes[0].primitives[0];
  const array = (index, Kind, width) => {
    const given = tree.accessors[index], view = tree.bufferViews[given.bufferView];
    const at = 28 + size + (view.byteOffset || 0) + (given.byteOffset || 0);
    return new Kind(bytes.buffer.slice(at, at + given.count * width * Kind.BYTES_PER_ELEMENT));
  };
  const { POSITION, NORMAL, COLOR_0 } = part.attributes;
  return { place: array(POSITION, Float32Array, 3), normal: array(NORMAL, Float32Array, 3),
    colour: array(COLOR_0, Uint8Array, 4), faces: array(part.indices, Uint32Array, 1) };
}

function showMesh(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: true });
  if (!gl) {
    canvas.outerHTML = '<p class="missing">This browser shows no WebGL 2, hence no mesh.</p>';
    return;
  }
  const mesh = readGlb(canvas.dataset.glb), program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  const buffer = (target, data) => {
    gl.bindBuffer(target, gl.createBuffer());
    gl.bufferData(target, data, gl.STATIC_DRAW);
  };
  const attributes = [["place", 3, gl.FLOAT], ["normal", 3, gl.FLOAT], ["colour", 4, gl.UNSIGNED_BYTE]];
  for (const [name, width, kind] of attributes) {
    const at = gl.getAttribLocation(program, name);
    buffer(gl.ARRAY_BUFFER, mesh[name]);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, width, kind, kind === gl.UNSIGNED_BYTE, 0, 0);
  }
  buffer(gl.ELEMENT_ARRAY_BUFFER, mesh.faces);
  gl.enable(gl.DEPTH_TEST);

  const low = [Infinity, Infinity, Infinity], high = scaled(low, -1);
  mesh.place.forEach((x, i) => { low[i % 3] = Math.min(low[i % 3], x); high[i % 3] = Math.max(high[i % 3], x); });
  const middle = scaled(plus(low, high), .5);
  let radius = 0;
  for (let i = 0; i < mesh.place.length; i += 3)
    radius = Math.max(radius, Math.hypot(...[0, 1, 2].map(k => mesh.place[i + k] - middle[k])));
  const [up, from] = ["up", "eye"].map(name => unit(canvas.dataset[name].split(" ").map(Number)));
  const level = plus(from, scaled(up, -dot(from, up)));
  const front = unit(dot(level, level) > 1e-6 ? level : cross(up, Math.abs(up[0]) < .9 ? [1, 0, 0] : [0, 1, 0]));
  const side = cross(up, front);
  const start = { turn: 0, rise: Math.asin(Math.max(-1, Math.min(1, dot(from, up)))), away: 2.7 };
  let eye = { ...start }, shape = false, visible = false, wanted = false, earlier = 0;
  let turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  function draw(now) {
    wanted = false;
    if (!visible) return;
    if (turning) eye.turn += .0004 * Math.min(now - earlier, 100);
    earlier = now;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map(x => Math.round(x * devicePixelRatio));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [c, s] = [Math.cos(eye.turn), Math.sin(eye.turn)];
    const z = plus(scaled(plus(scaled(front, c), scaled(side, s)), Math.cos(eye.rise)), scaled(up, Math.sin(eye.rise)));
    const x = plus(scaled(side, c), scaled(front, -s)), y = cross(z, x);
    const away = eye.away * radius, near = Math.max(away - radius, .01 * radius), far = away + radius;
    const focal = 2.4, wide = focal * Math.min(1, height / width), tall = focal * Math.min(1, width / height);
    const [a, b] = [(far + near) / (near - far), 2 * far * near / (near - far)];
    const columns = [0, 1, 2].map(i => [wide * x[i], tall * y[i], a * z[i], -z[i]]);
    const [mx, my, mz] = [dot(x, middle), dot(y, middle), dot(z, middle) + away];
    columns.push([-wide * mx, -tall * my, -a * mz + b, mz]);
    gl.uniformMatrix4fv(gl.getUniformLocation(program, "camera"), false, columns.flat());
    gl.uniform3fv(gl.getUniformLocation(program, "eye"), z);
    gl.uniform1i(gl.getUniformLocation(program, "shape"), shape);
    gl.drawElements(gl.TRIANGLES, mesh.faces.length, gl.UNSIGNED_INT, 0);
    if (turning) redraw();
  }
  const redraw = () => { if (!wanted) { wanted = true; requestAnimationFrame(draw); } };
  const [rotate, plain] = canvas.parentElement.querySelectorAll("button");
  function say() {
    rotate.setAttribute("aria-pressed", turning);
    plain.setAttribute("aria-pressed", shape);
    redraw();
  }
  function move(turn, rise, closer = 1) {
    eye.turn += turn;
    eye.rise = Math.max(-1.57, Math.min(1.57, eye.rise + rise));
    eye.away = Math.max(1.02, Math.min(20, eye.away * closer));
    turning = turning && closer !== 1;
    say();
  }
  rotate.addEventListener("click", () => { turning = !turning; say(); });
  plain.addEventListener("click", () => { shape = !shape; say(); });
  const keys = { ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, .1], ArrowDown: [0, -.1], "+": [0, 0, .9],
    "=": [0, 0, .9], "-": [0, 0, 1 / .9] };
  canvas.addEventListener("keydown", event => {
    if (event.key in keys) move(...keys[event.key]);
    else if (event.key === " ") rotate.click();
    else if (event.key === "s") plain.click();
    else if (event.key === "Home") { eye = { ...start }; redraw(); }
    else return;
    event.preventDefault();
  });
  const fingers = new Map();
  const apart = () => { const [p, q] = fingers.values(); return Math.hypot(p[0] - q[0], p[1] - q[1]); };
  canvas.addEventListener("pointerdown", event => {
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    const old = fingers.get(event.pointerId);
    if (!old) return;
    const before = fingers.size === 2 ? apart() : 1, here = [event.clientX, event.clientY];
    fingers.set(event.pointerId, here);
    const closer = fingers.size === 2 ? before / Math.max(apart(), 1) : 1;
    move((old[0] - here[0]) * .008 / fingers.size, (here[1] - old[1]) * .008 / fingers.size, closer);
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, event => fingers.delete(event.pointerId));
  canvas.addEventListener("wheel", event => {
    if (document.activeElement !== canvas) return;
    event.preventDefault();
    move(0, 0, Math.exp(Math.max(-1, Math.min(1, event.deltaY * .001))));
  }, { passive: false });
  new ResizeObserver(redraw).observe(canvas);
  new IntersectionObserver(([entry]) => { visible = entry.isIntersecting; redraw(); }).observe(canvas);
  say();
}
document.querySelectorAll("canvas.mesh").forEach(showMesh);
