"""The page of examples in a real browser, headless Chromium.

Skipped where there is no chromium, chromedriver or selenium (extra `browser`).
"""

import pathlib
import shutil

from folders import HOSTILE, write_run
import pytest

from attnlab.report import groups, viewer
from attnlab.report import runs as runs_lib

pytest.importorskip(
  'selenium', reason='selenium is missing: the extra browser has it'
)

from selenium import webdriver
from selenium.common import exceptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

_FLAGS = (
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
  '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  '--window-size=1280,900',
)  # fmt: skip


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  binary = shutil.which('chromium') or shutil.which('google-chrome')
  driver = shutil.which('chromedriver')
  if binary is None or driver is None:
    pytest.skip('chromium or chromedriver is missing')
  options = webdriver.ChromeOptions()
  options.binary_location = binary
  for flag in _FLAGS:
    options.add_argument(flag)
  profile = tmp_path_factory.mktemp('profile')
  options.add_argument(f'--user-data-dir={profile}')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  service = Service(driver)
  found = webdriver.Chrome(options=options, service=service)
  yield found
  found.quit()


class Page:
  """The page of some runs, opened."""

  def __init__(self, browser, folder: pathlib.Path):
    self.browser = browser
    found = groups.sections(runs_lib.read(runs_lib.find([folder])))
    path = folder / 'examples.html'
    path.write_text(viewer.page(viewer.examples(found)), encoding='utf-8')
    browser.get_log('browser')
    browser.get('about:blank')
    browser.get(path.as_uri())

  def all(self, selector: str):
    return self.browser.find_elements(By.CSS_SELECTOR, selector)

  def one(self, selector: str):
    return self.browser.find_element(By.CSS_SELECTOR, selector)

  def pick(self, name: str, text: str) -> None:
    select = Select(self.one(f'#{name}'))
    select.select_by_visible_text(text)

  def options(self, name: str) -> list[str]:
    return [option.text for option in self.all(f'#{name} option')]

  def hover(self, node) -> None:
    webdriver.ActionChains(self.browser).move_to_element(node).perform()

  def shades(self, side: int, kind: str) -> list[float]:
    words = self.all('.side')[side].find_elements(
      By.CSS_SELECTOR, f'.word[data-kind={kind}]'
    )
    script = 'return arguments[0].style.getPropertyValue("--w") || "0"'
    return [float(self.browser.execute_script(script, w)) for w in words]

  def shown(self) -> list[str]:
    return [node.text for node in self.all('#list button .first')]


@pytest.fixture
def page(browser, tmp_path):
  write_run(tmp_path / 'a', score='additive', examples=12)
  write_run(tmp_path / 'b', score='dot', seed=1, examples=12, heads=(2, 3))
  write_run(tmp_path / 'c', attends=False, examples=12)
  write_run(tmp_path / 'd', task='classification', figure=0.8, examples=12)
  return Page(browser, tmp_path)


def test_hover_shows_where_both_mechanisms_looked(page, tmp_path):
  titles = [
    'Translation on synthetic_en_zh',
    'Classification on synthetic_sentiment',
  ]
  assert page.options('section') == titles
  assert len(page.all('.side')) == 2
  run = runs_lib.read([tmp_path / 'a'])[0]
  weights = runs_lib.attention(run)['test'][0]['weights']
  words = page.all('.side:first-child .word[data-kind=target]')
  page.hover(words[1])
  assert page.shades(0, 'source') == pytest.approx(weights[1], abs=0.006)
  assert sum(page.shades(1, 'source')) == pytest.approx(1, abs=0.02)
  said = page.one('#said').text
  best = int(weights[1].argmax())
  assert f'A: t1 ← w{best} {round(100 * weights[1][best])} %' in said
  assert 'B: t1 ←' in said
  # A word of the source shows which words of the answer looked at it.
  page.hover(page.one('.side .word[data-kind=source]'))
  assert page.shades(0, 'target') == pytest.approx(weights[:, 0], abs=0.006)
  page.hover(page.one('h1'))
  assert page.shades(0, 'target') == [0.0] * 4
  assert page.one('#said').text == ''


def test_keyboard_and_click(page):
  words = page.all('.side:first-child .word[data-kind=target]')
  words[0].send_keys(Keys.ARROW_RIGHT)
  assert page.browser.switch_to.active_element == words[1]
  assert page.one('#said').text.startswith('A: t1 ←')
  stops = [word.get_attribute('tabindex') for word in words]
  assert stops == ['-1', '0', '-1', '-1']
  # A click, or a touch, stays until the next one.
  words[2].click()
  page.hover(page.one('h1'))
  assert page.one('#said').text.startswith('A: t2 ←')
  words[2].send_keys(Keys.ESCAPE)
  assert page.one('#said').text == ''


def test_two_mechanisms_layers_and_heads(page):
  assert page.options('a') == [
    'luong, additive (seed 0) – BLEU 30.0',
    'luong, dot (seed 1) – BLEU 30.0',
    'fixed (seed 0) – BLEU 30.0',
  ]
  assert page.options('layer') == ['mean of all', '1', '2']
  assert page.options('head') == ['mean of all', '1', '2', '3']
  word = '.side:last-child .word[data-kind=target]'
  page.hover(page.one(word))
  mean = page.shades(1, 'source')
  page.pick('layer', '2')
  page.pick('head', '3')
  page.hover(page.one(word))
  single = page.shades(1, 'source')
  assert sum(single) == pytest.approx(1, abs=0.02)
  assert single != mean
  page.pick('b', 'fixed (seed 0) – BLEU 30.0')
  assert 'no weights' in page.all('.side')[1].text
  page.pick('b', 'none')
  assert len(page.all('.side')) == 1
  assert not page.one('#layers').is_displayed()


def test_filters_and_order(page):
  assert page.one('#count').text == '12 of 12 examples'
  page.one('#least').send_keys('10')
  page.one('#most').send_keys('12')
  assert page.one('#count').text == '3 of 12 examples'
  assert [len(text.split()) for text in page.shown()] == [10, 11, 12]
  page.pick('order', 'longest first')
  assert [len(text.split()) for text in page.shown()] == [12, 11, 10]
  page.pick('errors', 'A is not the gold')
  assert [len(text.split()) for text in page.shown()] == [12]
  assert page.one('#example h2').text == 'Example 9'
  gold, a = (node.text for node in page.all('dd.answer')[:2])
  assert gold.startswith(a.split(' chrF')[0].strip())
  page.one('#find').send_keys('nowhere')
  assert page.one('#count').text == '0 of 12 examples'
  assert 'No example' in page.one('#example').text


def test_a_text_is_shaded_with_its_gold(page):
  page.pick('section', 'Classification on synthetic_sentiment')
  assert page.options('errors')[1] == 'A is wrong'
  words = page.all('.side .word')
  assert [word.text for word in words] == ['w0', 'w1', 'w2']
  assert 'gold' in words[0].get_attribute('class')
  assert sum(w**2 for w in page.shades(0, 'source')) == pytest.approx(
    1, abs=0.02
  )
  assert 'Most weight: w' in page.one('.side').text
  page.one('[aria-label="Next example"]').click()
  assert page.one('#example h2').text == 'Example 1'
  assert len(page.all('.side .word')) == 4


def test_an_address_leads_back(page):
  page.all('#list button')[5].click()
  address = page.browser.current_url
  page.browser.get('about:blank')
  page.browser.get(address)
  assert page.one('#example h2').text == 'Example 5'


def test_it_fits_a_telephone_and_both_themes(page, tmp_path):
  colours = set()
  for _ in range(3):
    page.one('#theme').click()
    style = 'return getComputedStyle(document.body).backgroundColor'
    colours.add(page.browser.execute_script(style))
  assert len(colours) == 2
  page.browser.set_window_size(500, 800)
  wide = 'return document.documentElement.scrollWidth - innerWidth'
  assert page.browser.execute_script(wide) <= 0
  page.browser.set_window_size(1280, 900)
  picture = tmp_path / 'page.png'
  assert page.browser.save_screenshot(str(picture))
  assert picture.stat().st_size > 20_000
  assert page.browser.get_log('browser') == []


@pytest.mark.parametrize('task', ['translation', 'classification'])
def test_hostile_tokens_are_text(browser, tmp_path, task):
  for i, score in enumerate(('dot', 'additive')):
    write_run(
      tmp_path / f'{i}',
      task=task,
      score=score,
      figure=0.5,
      tokens=HOSTILE,
      examples=2,
      model={'name': f'luong{HOSTILE[i]}'},
    )
  page = Page(browser, tmp_path)
  assert browser.title == 'attnlab report'
  words = page.all('.side:first-child .word[data-kind=source]')
  assert len(words) == len(HOSTILE)
  for i, word in enumerate(words):
    page.browser.execute_script(
      'arguments[0].dispatchEvent(new PointerEvent("pointerenter",'
      '{pointerType: "mouse"})); arguments[0].click()',
      word,
    )
    content = word.get_attribute('textContent')
    if HOSTILE[i] != '\ud800':
      assert content == HOSTILE[i]
  page.one('#find').send_keys('<script>')
  assert page.one('#count').text == '2 of 2 examples'
  assert browser.title == 'attnlab report'
  with pytest.raises(exceptions.NoAlertPresentException):
    browser.switch_to.alert.accept()
  # Neither a script or frame more, nor a violation of the policy.
  assert [len(page.all(tag)) for tag in ('script', 'iframe', 'img', 'svg')] == [
    2, 0, 0, 0,
  ]  # fmt: skip
  assert len(page.all('style')) == 1
  assert browser.get_log('browser') == []
