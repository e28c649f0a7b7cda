"""The words of the generated English-Chinese corpus, as tables.

Blanks divide columns; an underscore stands for a blank inside an English
entry. Classes are single letters:

  P person   A animal   N given name  C country or city   T thing
  X text     F food     V vehicle     G garment   H worn on head, neck or hand
  M plucked or struck instrument      R bowed instrument

The same English word may have two translations (old 老/旧, wear 穿/戴,
play 弹/拉/玩): the class of the noun decides, so a sentence has exactly one
translation but a word needs its context.
"""

from typing import NamedTuple


class Noun(NamedTuple):
  """A noun of both languages."""

  singular: str
  plural: str
  target: str
  measure: str  # the Chinese measure word it is counted with
  kind: str  # its class


class Verb(NamedTuple):
  """A verb, and what may be its subject and object."""

  base: str
  third: str
  past: str
  target: str
  stative: bool  # takes neither 了 nor 没
  subjects: str  # classes
  objects: str  # classes, '' for an intransitive verb


class Adjective(NamedTuple):
  """An adjective."""

  positive: str
  comparative: str  # '' if it is used before nouns only
  target: str
  linker: str  # 的 between it and its noun, or ''
  kinds: str  # classes of nouns it may describe


class Entry(NamedTuple):
  """A word, or a phrase, with a tag that says where it may stand."""

  source: str
  target: str
  tag: str


def _rows(table: str) -> list[list[str]]:
  rows = [line.split() for line in table.strip().split('\n')]
  return [[cell.replace('_', ' ') for cell in row] for row in rows]


def _suffix(word: str, ending: str) -> str:
  """Appends -s or -ed to the first word, with English spelling."""
  head, *tail = word.split()
  if head[-1] == 'y' and head[-2] not in 'aeou':
    head = head[:-1] + 'i' + ('es' if ending == 's' else ending)
  elif ending == 's' and head.endswith(('s', 'x', 'ch', 'sh', 'o')):
    head += 'es'
  else:
    head += ending[1:] if ending == 'ed' and head[-1] == 'e' else ending
  return ' '.join([head, *tail])


def _nouns(table: str) -> list[Noun]:
  """Rows: class  measure  noun=translation[=irregular plural] ..."""
  nouns = []
  for kind, measure, *entries in _rows(table):
    for entry in entries:
      word, target, *plural = entry.split('=')
      plural = plural[0] if plural else _suffix(word, 's')
      nouns.append(Noun(word, plural, target, measure, kind))
  return nouns


def _verbs(table: str) -> list[Verb]:
  """Rows: base  past ('-': regular)  [~]translation  subjects>objects."""
  verbs = []
  for base, past, target, frame in _rows(table):
    subjects, objects = frame.split('>')
    verbs.append(
      Verb(
        base,
        _suffix(base, 's'),
        _suffix(base, 'ed') if past == '-' else past,
        target.lstrip('~'),
        target.startswith('~'),
        subjects,
        objects,
      )
    )
  return verbs


def _adjectives(table: str) -> list[Adjective]:
  """Rows: positive  comparative ('-': none)  translation[*: no 的]  classes."""
  return [
    Adjective(
      positive,
      '' if comparative == '-' else comparative,
      target.rstrip('*'),
      '' if target.endswith('*') else '的',
      kinds,
    )
    for positive, comparative, target, kinds in _rows(table)
  ]


def _entries(table: str) -> list[Entry]:
  """Rows: tag  phrase=translation ..."""
  return [
    Entry(source, target, tag)
    for tag, *entries in _rows(table)
    for source, target in (entry.split('=') for entry in entries)
  ]


NOUNS = _nouns("""
P 位 teacher=老师 doctor=医生 lawyer=律师 writer=作家 painter=画家 chef=厨师
P 位 scientist=科学家 engineer=工程师 actor=演员 guest=客人 king=国王 queen=女王
P 个 student=学生 farmer=农民 worker=工人 driver=司机 boy=男孩 girl=女孩
P 个 child=孩子=children man=男人=men woman=女人=women friend=朋友
P 个 neighbor=邻居 tourist=游客 thief=小偷=thieves
P 名 nurse=护士 singer=歌手 soldier=士兵 policeman=警察=policemen
A 只 dog=狗 cat=猫 bird=鸟 rabbit=兔子 monkey=猴子 tiger=老虎 panda=熊猫
A 只 bear=熊 wolf=狼=wolves fox=狐狸 mouse=老鼠=mice duck=鸭子
A 头 cow=牛 pig=猪 lion=狮子 elephant=大象
A 匹 horse=马
A 条 snake=蛇
T 把 key=钥匙 knife=刀=knives umbrella=雨伞
T 个 cup=杯子 bottle=瓶子 ball=球 clock=钟
T 支 pen=笔 pencil=铅笔
T 张 photo=照片 ticket=票
T 台 computer=电脑 camera=相机 radio=收音机
T 部 phone=手机
T 盏 lamp=灯
T 份 gift=礼物
T 朵 flower=花
X 本 book=书 magazine=杂志 novel=小说 dictionary=词典
X 份 newspaper=报纸 report=报告
X 封 letter=信
X 首 poem=诗
X 个 story=故事
F 个 apple=苹果 orange=橙子 egg=鸡蛋 sandwich=三明治 potato=土豆
F 个 tomato=西红柿 peach=桃子 pear=梨
F 块 cake=蛋糕
F 根 banana=香蕉 carrot=胡萝卜
V 辆 car=汽车 bus=公共汽车 bicycle=自行车 truck=卡车
V 列 train=火车
V 艘 boat=船
V 架 plane=飞机
G 件 coat=大衣 shirt=衬衫 sweater=毛衣
G 条 dress=裙子
H 顶 hat=帽子
H 条 scarf=围巾 tie=领带
H 枚 ring=戒指
M 把 guitar=吉他
M 架 piano=钢琴
R 把 violin=小提琴
""")

VERBS = _verbs("""
chase - 追逐 PNA>PNA
follow - 跟随 PNA>PNA
attack - 攻击 PA>PNA
protect - 保护 PNA>PNAC
love - ~爱 PNA>PNAC
like - ~喜欢 PN>PNACTXFVGHMR
hate - ~讨厌 PN>PNAF
fear - ~害怕 PNA>PNA
trust - ~信任 PN>PN
respect - ~尊敬 PN>PN
miss - ~想念 PN>PNAC
remember - ~记得 PN>PNCX
need - ~需要 PN>PNTXVGH
help - 帮助 PN>PNA
praise - 表扬 PN>PN
criticize - 批评 PN>PN
invite - 邀请 PN>PN
thank - 感谢 PN>PN
support - 支持 PN>PN
deceive - 欺骗 PN>PN
welcome - 欢迎 PN>PN
teach taught 教 PN>PN
feed fed 喂 PN>A
look_for - 寻找 PN>PNATXV
visit - 拜访 PN>PN
visit - 访问 PN>C
leave left 离开 PN>C
buy bought 买 PN>TXFVGHMR
sell sold 卖 PN>TXFVGH
steal stole 偷 PN>TXFVH
wash - 洗 PN>FVG
repair - 修理 PN>TV
draw drew 画 PN>ATFV
collect - 收集 PN>TX
choose chose 选择 PN>TXGH
borrow - 借 PN>TXV
use - 使用 PN>TV
read read 读 PN>X
write wrote 写 PN>X
translate - 翻译 PN>X
publish - 出版 PN>X
eat ate 吃 PNA>F
cook - 煮 PN>F
taste - 品尝 PN>F
drive drove 开 PN>V
wear wore 穿 PN>G
wear wore 戴 PN>H
play - 弹 PN>M
play - 拉 PN>R
play - 玩 PNA>
sleep slept 睡觉 PNA>
swim swam 游泳 PNA>
run ran 跑步 PN>
sing sang 唱歌 PN>
dance - 跳舞 PN>
work - 工作 PN>
cry cried 哭 PN>
laugh - 笑 PN>
smile - 微笑 PN>
rest - 休息 PNA>
shout - 喊叫 PN>
travel traveled 旅行 PN>
exercise - 锻炼 PN>
study - 学习 PN>
walk - 散步 PN>
fight fought 打架 PNA>
""")

# give the book to Tom -> 把 书 送 给 汤姆
TRANSFERS = _verbs("""
give gave 送 PN>TXFGH
send sent 寄 PN>TXGH
lend lent 借 PN>TXV
hand - 递 PN>TXF
return - 还 PN>TXV
sell sold 卖 PN>TXFVGH
""")

# hide the book in the box -> 把 书 藏 在 盒子 里
PLACEMENTS = _verbs("""
put put 放 PN>TXFGH
hide hid 藏 PN>TXFH
throw threw 扔 PN>TXGH
""")

ADJECTIVES = _adjectives("""
tall taller 高 P
young younger 年轻 P
clever cleverer 聪明 PA
beautiful more_beautiful 漂亮 PGHT
kind kinder 善良 P
rich richer 富有 P
poor poorer 贫穷 P
brave braver 勇敢 PA
happy happier 快乐 PA
lazy lazier 懒惰 PA
strong stronger 强壮 PA
famous more_famous 有名 P
honest more_honest 诚实 P
healthy healthier 健康 PA
friendly friendlier 友好 PA
fat fatter 胖 PA
thin thinner 瘦 PA
busy busier 忙 P
lovely lovelier 可爱 A
dangerous more_dangerous 危险 A
old older 老* PA
old older 旧* TXVGHMR
new newer 新* TXVGHMR
big bigger 大* AFVT
small smaller 小* AFVT
white - 白* AVG
black - 黑* AVG
red - 红* FVGH
green - 绿* FVG
blue - 蓝* VGH
yellow - 黄* VGF
expensive more_expensive 昂贵 TVGHMR
cheap cheaper 便宜 TXVGHMR
heavy heavier 重 TV
useful more_useful 有用 TX
interesting more_interesting 有趣 X
boring more_boring 无聊 X
long longer 长 X
fresh fresher 新鲜 F
sweet sweeter 甜 F
delicious more_delicious 美味 F
""")

NAMES = _entries("""
N Tom=汤姆 Jerry=杰瑞 Mary=玛丽 Jack=杰克 Lucy=露西 Lily=莉莉 Peter=彼得
N Anna=安娜 David=大卫 Alice=爱丽丝 Bob=鲍勃 Mike=迈克 Linda=琳达 Paul=保罗
N Helen=海伦 Kate=凯特 John=约翰 Emma=艾玛 George=乔治 Susan=苏珊
C China=中国 America=美国 England=英国 France=法国 Germany=德国 Japan=日本
C Russia=俄罗斯 Italy=意大利 Spain=西班牙 Canada=加拿大 India=印度
C Brazil=巴西 Egypt=埃及 Beijing=北京 Shanghai=上海 London=伦敦 Paris=巴黎
""")

# subject form, object form, possessive, translation
PRONOUNS = [
  ('I', 'me', 'my', '我'),
  ('you', 'you', 'your', '你'),
  ('he', 'him', 'his', '他'),
  ('she', 'her', 'her', '她'),
  ('we', 'us', 'our', '我们'),
  ('they', 'them', 'their', '他们'),
]

# tag: number of the noun, and + if a measure word follows
DETERMINERS = _entries("""
singular+ a=一 this=这 that=那 one=一
plural+ two=两 three=三 four=四 five=五 six=六 seven=七 eight=八 nine=九 ten=十
plural these=这些 those=那些 many=很多 some=一些
""")
NUMERALS = [d for d in DETERMINERS if d.tag == 'plural+']

# tag: the prepositions that go with it
PLACES = _entries("""
in park=公园 school=学校 hospital=医院 library=图书馆 garden=花园 kitchen=厨房
in office=办公室 shop=商店 restaurant=餐馆 hotel=酒店 classroom=教室
in forest=森林 village=村子 factory=工厂 museum=博物馆 market=市场 house=房子
in station=车站 airport=机场 theater=剧院
on bridge=桥 roof=屋顶 street=街 beach=海滩 square=广场 mountain=山
""")
CONTAINERS = _entries("""
in box=盒子 bag=包 drawer=抽屉
on desk=桌子 chair=椅子 bed=床
""")
PREPOSITIONS = {
  'in': '里',
  'on': '上',
  'under': '下面',
  'behind': '后面',
  'near': '附近',
  'outside': '外面',
  'next to': '旁边',
  'in front of': '前面',
}

# tag: the tense they go with
TIMES = _entries("""
past yesterday=昨天 last_week=上周 last_month=上个月 last_year=去年
past last_night=昨晚 this_morning=今早
future tomorrow=明天 next_week=下周 next_month=下个月 next_year=明年
future tonight=今晚
present every_day=每天 every_week=每周 every_year=每年
any today=今天 at_noon=中午 at_night=夜里 in_the_evening=晚上
any in_spring=春天 in_summer=夏天 in_autumn=秋天 in_winter=冬天
any on_Monday=星期一 on_Tuesday=星期二 on_Wednesday=星期三 on_Thursday=星期四
any on_Friday=星期五 on_Saturday=星期六 on_Sunday=星期日
""")
UNITS = _entries("""
past days=天 weeks=周 years=年
""")
ADVERBS = _entries("""
present often=经常 always=总是 sometimes=有时 usually=通常 seldom=很少
present never=从不
""")
MODALS = _entries("""
future will=会
any can=能 should=应该
""")
