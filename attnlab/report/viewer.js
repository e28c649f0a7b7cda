'use strict';
// Everything that comes from a run is set as text: nothing here reads HTML.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const $ = (id) => document.getElementById(id);
  const state = {
    section: 0, split: 0, a: 0, b: -1, layer: -1, head: -1, example: 0,
  };
  let shown = []; // places of the examples that the filters let through
  let sides = []; // what the two columns hold: words and weights
  let pinned = null; // a word that was clicked: [column, 'target', 3]

  const section = () => data.sections[state.section];
  const split = () => section().splits[state.split];
  const example = () => split().examples[state.example];
  const answer = (run, e = example()) => (e && e.answers[run]) || null;
  const attends = (run) => split().examples.some((e) => e.answers[run]?.w);

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === 'class') node.className = value;
      else if (value !== null) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  function options(select, entries, chosen) {
    select.replaceChildren(...entries.map(([value, text]) => {
      const option = make('option', { value }, text);
      option.selected = String(value) === String(chosen);
      return option;
    }));
  }

  const percent = (w) =>
    w >= 0.0995 ? `${Math.round(100 * w)} %` : `${(100 * w).toFixed(1)} %`;

  const translates = () => section().task === 'translation';

  // Few translations are the reference word for word: they have a figure.
  const judged = (found) =>
    found.right ? '✓' : translates() ? found.say : '✗';

  // Weights: bytes [layers, heads, T, S], 255 of which are `m`.

  function weights(found) {
    const [layers, heads, rows, columns] = found.shape;
    const bytes = atob(found.w);
    const size = rows * columns;
    const mean = new Float32Array(size);
    const all = layers * heads === 1;
    const first = all || state.layer < 0 ? 0 : Math.min(state.layer, layers - 1);
    const last = all || state.layer < 0 ? layers - 1 : first;
    const low = all || state.head < 0 ? 0 : Math.min(state.head, heads - 1);
    const high = all || state.head < 0 ? heads - 1 : low;
    const scale = found.m / 255 / ((last - first + 1) * (high - low + 1));
    for (let l = first; l <= last; l++) {
      for (let h = low; h <= high; h++) {
        const start = (l * heads + h) * size;
        for (let i = 0; i < size; i++) {
          mean[i] += bytes.charCodeAt(start + i) * scale;
        }
      }
    }
    return { rows, columns, at: (t, s) => mean[t * columns + s] };
  }

  // Filters.

  function filter() {
    const least = Number($('least').value) || 0;
    const most = Number($('most').value) || Infinity;
    const wanted = $('errors').value;
    const text = $('find').value.trim().toLowerCase();
    const right = (e, run) => answer(run, e)?.right;
    shown = split().examples.map((_, i) => i).filter((i) => {
      const e = split().examples[i];
      if (e.words < least || e.words > most) return false;
      if (wanted === 'wrong' && right(e, state.a) !== false) return false;
      if (wanted === 'right' && right(e, state.a) !== true) return false;
      if (wanted === 'differ' && answer(state.a, e)?.text === answer(state.b, e)?.text) {
        return false;
      }
      if (!text) return true;
      const said = Object.values(e.answers).map((x) => x.text);
      return [e.text, e.gold, ...said].join('\n').toLowerCase().includes(text);
    });
    const value = {
      number: (i) => split().examples[i].id,
      short: (i) => split().examples[i].words,
      long: (i) => -split().examples[i].words,
      worst: (i) => answer(state.a, split().examples[i])?.score ?? Infinity,
    }[$('order').value];
    shown.sort((i, j) => value(i) - value(j) || i - j);
    const all = split().examples.length;
    $('count').textContent = `${shown.length} of ${all} example${all === 1 ? '' : 's'}`;
    list();
    if (!shown.includes(state.example)) state.example = shown[0] ?? -1;
    show();
  }

  function list() {
    $('list').replaceChildren(...shown.map((i) => {
      const e = split().examples[i];
      const found = answer(state.a, e);
      const facts = [found && judged(found), `${e.words} words`, `no. ${e.id}`];
      const button = make(
        'button', { type: 'button', 'data-example': i },
        make('bdi', { class: 'first' }, e.text),
        make('span', { class: 'more' }, facts.filter(Boolean).join(', ')),
      );
      button.addEventListener('click', () => {
        state.example = i;
        show();
      });
      return make('li', {}, button);
    }));
  }

  // Scrolls the list and never the page.
  function reveal(button) {
    const box = $('list').getBoundingClientRect();
    const { top, bottom } = button.getBoundingClientRect();
    if (top < box.top) $('list').scrollTop -= box.top - top;
    else if (bottom > box.bottom) $('list').scrollTop += bottom - box.bottom;
  }

  // One example.

  function show() {
    pinned = null;
    sides = [];
    say('');
    for (const button of $('list').querySelectorAll('button')) {
      const current = Number(button.dataset.example) === state.example;
      button.setAttribute('aria-current', current);
      if (current) reveal(button);
    }
    const article = $('example');
    const e = example();
    if (!e) {
      article.replaceChildren(make('p', {}, 'No example is left: loosen the filters.'));
      return;
    }
    const runs = [state.a, state.b].filter((run) => run >= 0);
    const step = (by) => {
      const place = shown.indexOf(state.example) + by;
      if (place >= 0 && place < shown.length) {
        state.example = shown[place];
        show();
      }
    };
    const before = make('button', { type: 'button', 'aria-label': 'Previous example' }, '←');
    const after = make('button', { type: 'button', 'aria-label': 'Next example' }, '→');
    before.addEventListener('click', () => step(-1));
    after.addEventListener('click', () => step(1));
    const top = make(
      'div', { class: 'top' },
      make('h2', {}, `Example ${e.id}`),
      make('span', { class: 'facts' }, `${split().name}, ${e.words} words`),
      before, after,
    );
    const texts = make('dl');
    if (translates()) {
      texts.append(make('dt', {}, 'Source'), make('dd', { dir: 'auto' }, e.text));
    }
    texts.append(make('dt', {}, 'Gold'), make('dd', { dir: 'auto', class: 'answer' }, e.gold));
    runs.forEach((run, i) => {
      const found = answer(run);
      const value = make('dd', { dir: 'auto', class: 'answer' }, found ? found.text : '–');
      if (found && (found.right || !translates())) {
        value.append(make(
          'span', { class: found.right ? 'right' : 'wrong' },
          found.right ? '  ✓' : '  ✗',
        ));
      }
      if (found?.say) value.append(make('span', { class: 'tag' }, `  ${found.say}`));
      texts.append(make('dt', {}, i ? 'B' : 'A'), value);
    });
    const columns = make('div', { class: runs.length > 1 ? 'sides two' : 'sides' });
    article.replaceChildren(top, texts, columns);
    runs.forEach((run, i) => columns.append(side(run, i)));
    sides.forEach((_, i) => draw(i));
    remember();
  }

  function side(run, column) {
    const { setting, seed } = section().runs[run];
    const box = make(
      'section', { class: 'side', 'aria-label': `${column ? 'B' : 'A'}: ${setting}` },
      make('h3', {}, `${column ? 'B' : 'A'}  ${setting} `, make('span', { class: 'tag' }, seed)),
    );
    const found = answer(run);
    const e = example();
    const held = { column, nodes: { source: [], target: [] }, weights: null };
    sides.push(held);
    if (!found?.w) {
      box.append(make('p', { class: 'note' }, 'This run has no weights for this example.'));
      return box;
    }
    held.source = found.source || e.source;
    held.target = found.target;
    held.weights = weights(found);
    if (held.weights.rows === 1) {
      text(box, held, e);
      return box;
    }
    for (const kind of ['source', 'target']) {
      const line = make('span', { class: 'words', role: 'group', 'aria-label': `${kind} words` });
      line.append(...words(held, kind, held[kind]));
      box.append(make('div', { class: 'row' }, make('span', {}, kind === 'source' ? 'source' : 'predicted'), line));
    }
    const [layers, heads] = found.shape;
    if (layers * heads === 1 && (state.layer >= 0 || state.head >= 0)) {
      box.append(make('p', { class: 'note' }, 'Of this example a mean alone is recorded.'));
    }
    held.canvas = make('canvas', {
      role: 'img',
      'aria-label': 'Weights: a row for each predicted word, a column for each source word',
    });
    held.canvas.addEventListener('pointermove', (event) => {
      const { left, top, origin, cell } = held.map;
      const x = event.clientX - held.canvas.getBoundingClientRect().left;
      const y = event.clientY - held.canvas.getBoundingClientRect().top;
      const t = Math.floor((y - top) / cell);
      const s = Math.floor((x - left) / cell);
      if (t >= 0 && t < held.target.length && x > origin) choose(column, 'target', t, s);
    });
    held.canvas.addEventListener('pointerleave', rest);
    box.append(held.canvas);
    return box;
  }

  // Words, each a button; one of a row is reached by Tab, the others by arrows.

  function words(held, kind, tokens, gold = []) {
    const nodes = tokens.map((token, i) => {
      const button = make(
        'button',
        {
          type: 'button',
          class: `word${gold.includes(i) ? ' gold' : ''}`,
          tabindex: i ? -1 : 0,
          'data-kind': kind,
        },
        readable(token),
      );
      if (token === '</s>') button.classList.add('end');
      button.addEventListener('pointerenter', (event) => {
        if (event.pointerType === 'mouse' && !pinned) choose(held.column, kind, i);
      });
      button.addEventListener('pointerleave', (event) => {
        if (event.pointerType === 'mouse') rest();
      });
      button.addEventListener('focus', () => {
        if (!pinned) choose(held.column, kind, i);
      });
      button.addEventListener('blur', rest);
      button.addEventListener('click', () => {
        const same = pinned && pinned.join() === [held.column, kind, i].join();
        pinned = same ? null : [held.column, kind, i];
        choose(held.column, kind, i);
      });
      button.addEventListener('keydown', (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (event.key === 'Escape') pinned = null;
        if (!by || !nodes[i + by]) return;
        event.preventDefault();
        pinned = null;
        nodes[i].tabIndex = -1;
        nodes[i + by].tabIndex = 0;
        nodes[i + by].focus();
      });
      return button;
    });
    held.nodes[kind] = nodes;
    return nodes;
  }

  const readable = (token) =>
    token === '</s>' ? '⏎' : token.replace(/^▁(?=.)/u, '') || '␣';

  function rest() {
    if (pinned) choose(...pinned);
    else clear();
  }

  function clear() {
    for (const held of sides) paint(held, null);
    say('');
  }

  function choose(column, kind, place, other = -1) {
    const held = sides[column];
    if (!held?.weights) return;
    const lines = [`${column ? 'B' : 'A'}: ${paint(held, kind, place, other)}`];
    const token = held[kind][place];
    // The same word of the other column, if it has it as often.
    const nth = held[kind].slice(0, place).filter((x) => x === token).length;
    for (const twin of sides) {
      if (twin === held || !twin.weights) continue;
      const places = twin[kind].map((x, i) => (x === token ? i : -1)).filter((i) => i >= 0);
      const found = kind === 'source' ? place : places[nth] ?? places[0];
      if (found === undefined || twin[kind][found] !== token) paint(twin, null);
      else lines.push(`${twin.column ? 'B' : 'A'}: ${paint(twin, kind, found)}`);
    }
    say(lines.sort().join('\u2003\u2003'));
  }

  // Shades one side by the weights of a word of the other; says the largest.
  function paint(held, kind, place, other = -1) {
    if (!held.weights) return '';
    if (held.weights.rows === 1) {
      return kind === null ? '' :
        `${readable(held.source[place])} ${percent(held.weights.at(0, place))}`;
    }
    const opposite = kind === 'target' ? 'source' : 'target';
    const value = (i) =>
      kind === null ? 0 :
        kind === 'target' ? held.weights.at(place, i) : held.weights.at(i, place);
    for (const [name, nodes] of Object.entries(held.nodes)) {
      nodes.forEach((node, i) => {
        const share = kind !== null && name === opposite ? value(i) : 0;
        node.style.setProperty('--w', Math.min(1, share).toFixed(3));
        node.classList.toggle('chosen', name === kind && i === place);
      });
    }
    draw(held.column, kind, place);
    if (kind === null) return '';
    const order = held[opposite].map((_, i) => i).sort((i, j) => value(j) - value(i));
    const told = (other >= 0 && other < held.source.length ? [other] : order.slice(0, 3))
      .map((i) => `${readable(held[opposite][i])} ${percent(value(i))}`);
    return `${readable(held[kind][place])} ${kind === 'target' ? '←' : '→'} ${told.join(', ')}`;
  }

  // Sentences and documents: words shaded by their own weights.

  function text(box, held, e) {
    const value = (i) => held.weights.at(0, i);
    const nodes = words(held, 'source', held.source, e.marked || []);
    // By the root: the weights of many words are small, and A and B comparable.
    nodes.forEach((node, i) => node.style.setProperty('--w', Math.sqrt(Math.min(1, value(i))).toFixed(3)));
    let start = 0;
    const sums = e.lines.map((size) => {
      let sum = 0;
      for (let i = start; i < start + size; i++) sum += value(i);
      start += size;
      return sum;
    });
    start = 0;
    const all = make('div', { role: 'group', 'aria-label': 'words by weight' });
    e.lines.forEach((size, i) => {
      const line = make('span', { class: 'words' }, ...nodes.slice(start, start + size));
      start += size;
      if (e.lines.length === 1) {
        all.append(line);
        return;
      }
      const fill = make('i');
      fill.style.setProperty('--w', Math.min(1, sums[i]).toFixed(3));
      const bar = make('span', {
        class: 'bar', role: 'img', title: percent(sums[i]),
        'aria-label': `sentence ${i + 1}: ${percent(sums[i])}`,
      }, fill);
      all.append(make('div', { class: 'sentence' }, bar, line));
    });
    const order = held.source.map((_, i) => i).sort((i, j) => value(j) - value(i)).slice(0, 5);
    const told = order.filter((i, rank) => !rank || value(i) >= 0.005).map((i) => `${readable(held.source[i])} ${percent(value(i))}`);
    const gold = e.marked ? '; underlined: gold' : '';
    box.append(all, make('p', { class: 'note' }, `Most weight: ${told.join(', ')}${gold}`));
  }

  // The matrix, on a canvas: rows are predicted words, columns the source.

  function draw(column, kind = null, place = -1) {
    const held = sides[column];
    if (!held?.canvas) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const pen = held.canvas.getContext('2d');
    const font = (size) => `${size}px system-ui, 'Noto Sans CJK SC', sans-serif`;
    const cut = (token) => (readable(token).length > 14 ? `${readable(token).slice(0, 13)}…` : readable(token));
    const { source, target } = held;
    const room = Math.min(720, held.canvas.parentElement.clientWidth - 34);
    pen.font = font(11);
    const wide = (tokens) => Math.max(...tokens.map((x) => pen.measureText(cut(x)).width)) + 8;
    const left = wide(target);
    const top = wide(source);
    const cell = Math.max(5, Math.min(19, (room - left) / source.length));
    const size = Math.min(11, cell * 0.85);
    const width = left + cell * source.length + 1;
    const height = top + cell * target.length + 1;
    const scale = window.devicePixelRatio || 1;
    held.map = { left, top, origin: 0, cell };
    held.canvas.width = Math.ceil(width * scale);
    held.canvas.height = Math.ceil(height * scale);
    held.canvas.style.width = `${width}px`;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.textBaseline = 'middle';
    const ink = colour('--ink');
    const soft = colour('--soft');
    const line = colour('--line');
    const mark = colour('--mark').split(' ').join(', ');
    target.forEach((token, t) => {
      const y = top + cell * t;
      source.forEach((_, s) => {
        const w = Math.min(1, held.weights.at(t, s));
        pen.fillStyle = `rgba(${mark}, ${w.toFixed(3)})`;
        pen.fillRect(left + cell * s, y, cell, cell);
      });
      pen.fillStyle = kind === 'target' && t === place ? ink : soft;
      pen.font = font(size);
      pen.textAlign = 'right';
      pen.fillText(cut(token), left - 5, y + cell / 2);
    });
    pen.strokeStyle = line;
    pen.lineWidth = 0.5;
    pen.beginPath();
    for (let s = 0; s <= source.length; s++) {
      pen.moveTo(left + cell * s, top);
      pen.lineTo(left + cell * s, height - 1);
    }
    for (let t = 0; t <= target.length; t++) {
      pen.moveTo(left, top + cell * t);
      pen.lineTo(width - 1, top + cell * t);
    }
    pen.stroke();
    pen.textAlign = 'left';
    source.forEach((token, s) => {
      pen.save();
      pen.translate(left + cell * (s + 0.5), top - 5);
      pen.rotate(-Math.PI / 2);
      pen.fillStyle = kind === 'source' && s === place ? ink : soft;
      pen.font = font(size);
      pen.fillText(cut(token), 0, 0);
      pen.restore();
    });
    if (kind) {
      pen.strokeStyle = colour('--link');
      pen.lineWidth = 1.5;
      if (kind === 'target') pen.strokeRect(left, top + cell * place, width - left - 1, cell);
      else pen.strokeRect(left + cell * place, top, cell, height - top - 1);
    }
  }

  function say(line) {
    $('said').textContent = line;
  }

  // Controls.

  function fillSection() {
    options($('split'), section().splits.map((x, i) => [i, x.name]), state.split);
    const name = (run) =>
      `${run.setting}${run.seed ? ` (${run.seed})` : ''}${run.figure ? ` – ${run.figure}` : ''}`;
    const runs = section().runs.map((run, i) => [i, name(run)]);
    options($('a'), runs, state.a);
    options($('b'), [[-1, 'none'], ...runs], state.b);
    const [wrong, right] = translates()
      ? ['A is not the gold', 'A is the gold'] : ['A is wrong', 'A is right'];
    options($('errors'), [
      ['all', 'all'], ['wrong', wrong], ['right', right],
      ['differ', 'A and B differ'],
    ], $('errors').value || 'all');
    $('about').textContent = section().note;
  }

  function fillLayers() {
    const shapes = split().examples.flatMap((e) =>
      [state.a, state.b].map((run) => answer(run, e)?.shape).filter(Boolean));
    for (const [i, name] of [[0, 'layer'], [1, 'head']]) {
      const count = Math.max(1, ...shapes.map((shape) => shape[i]));
      if (state[name] >= count) state[name] = -1;
      $(`${name}s`).hidden = count === 1;
      const each = [...Array(count).keys()].map((n) => [n, n + 1]);
      options($(name), [[-1, 'mean of all'], ...each], state[name]);
    }
  }

  function begin() {
    state.example = 0;
    const able = section().runs.map((_, i) => i).filter(attends);
    state.a = able[0] ?? 0;
    const setting = section().runs[state.a].setting;
    const rest = able.filter((i) => section().runs[i].setting !== setting);
    state.b = rest[0] ?? able[1] ?? (section().runs.length > 1 ? (state.a ? 0 : 1) : -1);
  }

  function remember() {
    const keys = ['section', 'split', 'a', 'b', 'layer', 'head', 'example'];
    const words = new URLSearchParams(keys.map((key) => [key, state[key]]));
    history.replaceState(null, '', `#${words}`);
  }

  function recall() {
    const words = new URLSearchParams(location.hash.slice(1));
    if (!words.has('section')) return;
    const read = (key, low, count) => {
      const value = Number(words.get(key) ?? NaN);
      if (Number.isInteger(value) && value >= low && value < count) state[key] = value;
    };
    read('section', 0, data.sections.length);
    read('split', 0, section().splits.length);
    begin();
    read('a', 0, section().runs.length);
    read('b', -1, section().runs.length);
    read('layer', -1, 99);
    read('head', -1, 99);
    read('example', 0, split().examples.length);
  }

  function start() {
    options($('section'), data.sections.map((x, i) => [i, x.title]), 0);
    options($('order'), [
      ['number', 'by number'], ['short', 'shortest first'],
      ['long', 'longest first'], ['worst', 'worst of A first'],
    ], 'number');
    begin();
    recall();
    options($('section'), data.sections.map((x, i) => [i, x.title]), state.section);
    const again = () => {
      fillSection();
      fillLayers();
      filter();
    };
    $('controls').addEventListener('submit', (event) => event.preventDefault());
    $('controls').addEventListener('change', (event) => {
      const name = event.target.id;
      if (name in state) state[name] = Number(event.target.value);
      if (name === 'section') state.split = 0;
      if (name === 'section' || name === 'split') begin();
      if (name === 'order') state.example = -1;
      again();
    });
    $('controls').addEventListener('input', (event) => {
      if (event.target.tagName === 'INPUT') filter();
    });
    const themes = { '': 'as the system', dark: 'dark', light: 'light' };
    const next = { '': 'dark', dark: 'light', light: '' };
    $('theme').addEventListener('click', () => {
      const theme = next[document.documentElement.dataset.theme || ''];
      document.documentElement.dataset.theme = theme;
      $('theme').setAttribute('aria-label', `Colours: ${themes[theme]}`);
      sides.forEach((_, i) => draw(i));
    });
    const redraw = () => sides.forEach((_, i) => draw(i));
    window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
    window.addEventListener('resize', redraw);
    document.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        pinned = null;
        clear();
      }
    });
    again();
  }

  if (data.sections.length) start();
  else $('example').textContent = 'These runs recorded no predictions.';
})();
