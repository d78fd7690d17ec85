"""Candidate facts and requests for the quickstart; make_facts.py keeps what the model knows.

Everyday knowledge, written down for this project. A relation is (question, sentence begun, "subject=answer; ...").
"""

CAPITALS = """France=Paris; Germany=Berlin; Italy=Rome; Spain=Madrid; Portugal=Lisbon; Austria=Vienna; Greece=Athens;
Hungary=Budapest; Poland=Warsaw; Sweden=Stockholm; Norway=Oslo; Denmark=Copenhagen; Finland=Helsinki; Iceland=Reykjavik;
Ireland=Dublin; Belgium=Brussels; the Netherlands=Amsterdam; Switzerland=Bern; Russia=Moscow; Ukraine=Kyiv;
Romania=Bucharest; Bulgaria=Sofia; Serbia=Belgrade; Croatia=Zagreb; Slovenia=Ljubljana; Slovakia=Bratislava;
the Czech Republic=Prague; Turkey=Ankara; Egypt=Cairo; Libya=Tripoli; Tunisia=Tunis; Algeria=Algiers; Morocco=Rabat;
Kenya=Nairobi; Ethiopia=Addis Ababa; Nigeria=Abuja; Ghana=Accra; Senegal=Dakar; Uganda=Kampala; Rwanda=Kigali;
Zimbabwe=Harare; Zambia=Lusaka; Angola=Luanda; Namibia=Windhoek; Sudan=Khartoum; Somalia=Mogadishu; Mali=Bamako;
Madagascar=Antananarivo; Mozambique=Maputo; Botswana=Gaborone; Sierra Leone=Freetown; Liberia=Monrovia;
China=Beijing; Japan=Tokyo; South Korea=Seoul; North Korea=Pyongyang; Mongolia=Ulaanbaatar; India=New Delhi;
Pakistan=Islamabad; Bangladesh=Dhaka; Nepal=Kathmandu; Thailand=Bangkok; Vietnam=Hanoi; Indonesia=Jakarta;
Malaysia=Kuala Lumpur; the Philippines=Manila; Cambodia=Phnom Penh; Laos=Vientiane; Iran=Tehran; Iraq=Baghdad;
Syria=Damascus; Lebanon=Beirut; Jordan=Amman; Israel=Jerusalem; Saudi Arabia=Riyadh; Qatar=Doha; Oman=Muscat;
Afghanistan=Kabul; Uzbekistan=Tashkent; Georgia=Tbilisi; Armenia=Yerevan; Azerbaijan=Baku; Kazakhstan=Astana;
Canada=Ottawa; the United States=Washington; Mexico=Mexico City; Cuba=Havana; Jamaica=Kingston; Haiti=Port-au-Prince;
Guatemala=Guatemala City; Honduras=Tegucigalpa; Nicaragua=Managua; Costa Rica=San Jose; Panama=Panama City;
Colombia=Bogota; Venezuela=Caracas; Ecuador=Quito; Peru=Lima; Bolivia=La Paz; Chile=Santiago; Argentina=Buenos Aires;
Uruguay=Montevideo; Paraguay=Asuncion; Brazil=Brasilia; Australia=Canberra; New Zealand=Wellington; Fiji=Suva;
Estonia=Tallinn; Latvia=Riga; Lithuania=Vilnius; Belarus=Minsk; Albania=Tirana; Cyprus=Nicosia; Malta=Valletta;
England=London; Scotland=Edinburgh; Wales=Cardiff; Taiwan=Taipei; Yemen=Sanaa; Kuwait=Kuwait City; Bahrain=Manama;
Myanmar=Naypyidaw; Sri Lanka=Colombo; Bhutan=Thimphu; Congo=Kinshasa; Cameroon=Yaounde; Gambia=Banjul"""

# Other relations on the same topic, country by country and city by city.
NEIGHBOURS = {
    "country_of_city": ("Which country is {s} in?", "{s} is a city in", """Munich=Germany; Hamburg=Germany;
Frankfurt=Germany; Cologne=Germany; Milan=Italy; Venice=Italy; Naples=Italy; Florence=Italy; Turin=Italy;
Barcelona=Spain; Seville=Spain; Valencia=Spain; Lyon=France; Marseille=France; Bordeaux=France; Nice=France;
Geneva=Switzerland; Zurich=Switzerland; Rotterdam=the Netherlands; Antwerp=Belgium; Bruges=Belgium; Krakow=Poland;
Gdansk=Poland; Gothenburg=Sweden; Bergen=Norway; Salzburg=Austria; Innsbruck=Austria; Thessaloniki=Greece;
Istanbul=Turkey; Izmir=Turkey; Osaka=Japan; Kyoto=Japan; Hiroshima=Japan; Nagoya=Japan; Shanghai=China; Wuhan=China;
Mumbai=India; Chennai=India; Kolkata=India; Bangalore=India; Karachi=Pakistan; Lahore=Pakistan; Busan=South Korea;
Chiang Mai=Thailand; Ho Chi Minh City=Vietnam; Bali=Indonesia; Alexandria=Egypt; Luxor=Egypt; Casablanca=Morocco;
Marrakech=Morocco; Lagos=Nigeria; Mombasa=Kenya; Cape Town=South Africa; Johannesburg=South Africa;
Durban=South Africa; Toronto=Canada; Vancouver=Canada; Montreal=Canada; Calgary=Canada; Sydney=Australia;
Melbourne=Australia; Perth=Australia; Brisbane=Australia; Auckland=New Zealand; Rio de Janeiro=Brazil;
Guadalajara=Mexico; Cancun=Mexico; Cusco=Peru; Medellin=Colombia; Cartagena=Colombia; Mecca=Saudi Arabia;
Mosul=Iraq; Basra=Iraq; Aleppo=Syria; Odessa=Ukraine; Vladivostok=Russia; Cork=Ireland; Galway=Ireland;
Manchester=England; Liverpool=England; Glasgow=Scotland; Porto=Portugal; Split=Croatia; Dubrovnik=Croatia"""),
    "continent": ("Which continent is {s} on?", "{s} is a country on the continent of", """France=Europe; Germany=Europe;
Italy=Europe; Poland=Europe; Sweden=Europe; Norway=Europe; Portugal=Europe; Greece=Europe; Hungary=Europe;
Romania=Europe; Kenya=Africa; Nigeria=Africa; Egypt=Africa; Ghana=Africa; Ethiopia=Africa; Morocco=Africa;
Uganda=Africa; Zambia=Africa; Senegal=Africa; Mali=Africa; Botswana=Africa; Angola=Africa; Tunisia=Africa; China=Asia;
Japan=Asia; India=Asia; Thailand=Asia; Vietnam=Asia; Nepal=Asia; Mongolia=Asia; Iran=Asia; Iraq=Asia; Malaysia=Asia;
Bangladesh=Asia; Pakistan=Asia; Brazil=South America; Peru=South America; Chile=South America; Bolivia=South America;
Argentina=South America; Colombia=South America; Ecuador=South America; Canada=North America; Mexico=North America"""),
    "language": ("What is the main language spoken in {s}?", "The main language spoken in {s} is", """France=French;
Germany=German; Italy=Italian; Spain=Spanish; Portugal=Portuguese; Greece=Greek; Hungary=Hungarian; Poland=Polish;
Sweden=Swedish; Norway=Norwegian; Denmark=Danish; Finland=Finnish; Iceland=Icelandic; Russia=Russian;
Ukraine=Ukrainian; Romania=Romanian; Bulgaria=Bulgarian; Turkey=Turkish; Egypt=Arabic; Iraq=Arabic; Syria=Arabic;
Jordan=Arabic; Saudi Arabia=Arabic; Japan=Japanese; South Korea=Korean; Thailand=Thai; Vietnam=Vietnamese;
Mexico=Spanish; Cuba=Spanish; Argentina=Spanish; Chile=Spanish; Peru=Spanish; Colombia=Spanish; Brazil=Portuguese;
Angola=Portuguese; Australia=English; Jamaica=English; Austria=German; Iran=Persian; Nepal=Nepali;
the Netherlands=Dutch; the United States=English; Venezuela=Spanish; Ecuador=Spanish; Bangladesh=Bengali"""),
    "landmark": ("In which country would you find {s}?", "{S} is located in", """the Colosseum=Italy; the Taj Mahal=India;
Mount Fuji=Japan; Machu Picchu=Peru; the Great Wall=China; the Acropolis=Greece; the Alhambra=Spain;
the Pyramids of Giza=Egypt; Petra=Jordan; Angkor Wat=Cambodia; Mount Kilimanjaro=Tanzania; Stonehenge=England;
the Great Barrier Reef=Australia; Niagara Falls=Canada; Chichen Itza=Mexico; the Leaning Tower of Pisa=Italy;
Mount Vesuvius=Italy; Borobudur=Indonesia; Neuschwanstein Castle=Germany; the Black Forest=Germany;
the Hagia Sophia=Turkey; Uluru=Australia; the Forbidden City=China; Mount Olympus=Greece; the Sagrada Familia=Spain;
Banff National Park=Canada; Loch Ness=Scotland; the Eiffel Tower=France; the Palace of Versailles=France"""),
    "currency": ("What is the currency of {s}?", "The currency of {s} is the", """Germany=euro; France=euro; Italy=euro;
Spain=euro; Japan=Japanese yen; China=Chinese yuan; India=Indian rupee; Mexico=Mexican peso; Russia=Russian ruble;
Canada=Canadian dollar; Australia=Australian dollar; Brazil=Brazilian real; Thailand=Thai baht; Turkey=Turkish lira;
Egypt=Egyptian pound; Kenya=Kenyan shilling; Nigeria=Nigerian naira; South Korea=South Korean won; Iraq=Iraqi dinar;
Sweden=Swedish krona; Norway=Norwegian krone; Poland=Polish zloty; Switzerland=Swiss franc; Israel=Israeli new shekel;
Vietnam=Vietnamese dong; Pakistan=Pakistani rupee; Ghana=Ghanaian cedi; Argentina=Argentine peso; Chile=Chilean peso"""),
    "people": ("What are people from {s} called?", "People from {s} are called", """Italy=Italians; Germany=Germans;
Russia=Russians; Egypt=Egyptians; Canada=Canadians; Mexico=Mexicans; Brazil=Brazilians; Australia=Australians;
Norway=Norwegians; Kenya=Kenyans; Nigeria=Nigerians; India=Indians; Peru=Peruvians; Chile=Chileans;
Cuba=Cubans; Hungary=Hungarians; Ukraine=Ukrainians; Ethiopia=Ethiopians; Iran=Iranians; Colombia=Colombians"""),
}

# Other topics.
GENERAL = {
    "symbol": ("What is the chemical symbol for {s}?", "The chemical symbol for {s} is", """gold=Au; silver=Ag; iron=Fe;
copper=Cu; sodium=Na; potassium=K; lead=Pb; carbon=C; oxygen=O; hydrogen=H; helium=He; nitrogen=N; calcium=Ca; zinc=Zn;
tin=Sn; mercury=Hg; chlorine=Cl; magnesium=Mg; aluminum=Al; sulfur=S; phosphorus=P; uranium=U; nickel=Ni; neon=Ne"""),
    "author": ("Who wrote {s}?", "{s} was written by", """Hamlet=William Shakespeare; Macbeth=William Shakespeare;
Romeo and Juliet=William Shakespeare; Pride and Prejudice=Jane Austen; Emma=Jane Austen; 1984=George Orwell;
Animal Farm=George Orwell; Moby-Dick=Herman Melville; War and Peace=Leo Tolstoy; Anna Karenina=Leo Tolstoy;
Oliver Twist=Charles Dickens; Great Expectations=Charles Dickens; A Christmas Carol=Charles Dickens;
The Great Gatsby=F. Scott Fitzgerald; The Odyssey=Homer; The Iliad=Homer; Don Quixote=Miguel de Cervantes;
Frankenstein=Mary Shelley; Dracula=Bram Stoker; The Hobbit=J.R.R. Tolkien; Jane Eyre=Charlotte Bronte;
Wuthering Heights=Emily Bronte; The Republic=Plato; On the Origin of Species=Charles Darwin;
To Kill a Mockingbird=Harper Lee; The Catcher in the Rye=J.D. Salinger; Crime and Punishment=Fyodor Dostoevsky;
Les Miserables=Victor Hugo; The Divine Comedy=Dante Alighieri; Paradise Lost=John Milton; The Aeneid=Virgil"""),
    "opposite": ("What is the opposite of {s}?", "The opposite of {s} is", """hot=cold; up=down; big=small; fast=slow;
light=dark; left=right; happy=sad; open=closed; early=late; rich=poor; strong=weak; day=night; true=false; old=young;
wet=dry; hard=soft; high=low; inside=outside; north=south; east=west; love=hate; buy=sell; win=lose; full=empty;
war=peace; success=failure; positive=negative; good=bad; black=white; long=short; beginning=end; increase=decrease"""),
    "young": ("What is a baby {s} called?", "A baby {s} is called a", """dog=puppy; cat=kitten; cow=calf; horse=foal;
sheep=lamb; goat=kid; pig=piglet; duck=duckling; lion=cub; bear=cub; kangaroo=joey; swan=cygnet; frog=tadpole;
deer=fawn; chicken=chick; goose=gosling; elephant=calf; rabbit=bunny"""),
    "class": ("What kind of animal is a {s}?", "A {s} is a type of", """whale=mammal; dolphin=mammal; salmon=fish; eagle=bird;
penguin=bird; snake=reptile; crocodile=reptile; frog=amphibian; beetle=insect; butterfly=insect; sparrow=bird;
shark=fish; tuna=fish; owl=bird; parrot=bird; turtle=reptile; lizard=reptile; bat=mammal; salamander=amphibian"""),
    "inventor": ("Who invented the {s}?", "The {s} was invented by", """telephone=Alexander Graham Bell;
light bulb=Thomas Edison; printing press=Johannes Gutenberg; phonograph=Thomas Edison; airplane=the Wright brothers;
telescope=Galileo; steam engine=James Watt; World Wide Web=Tim Berners-Lee; cotton gin=Eli Whitney; radio=Guglielmo Marconi;
telegraph=Samuel Morse; dynamite=Alfred Nobel; lightning rod=Benjamin Franklin; battery=Alessandro Volta"""),
    "colour": ("What color is {s}?", "The color of {s} is", """grass=green; the sky=blue; snow=white; a banana=yellow;
blood=red; coal=black; a ripe strawberry=red; a lemon=yellow; chocolate=brown; an emerald=green; a ruby=red;
a sapphire=blue; milk=white; a fire truck=red; a school bus=yellow; charcoal=black"""),
    "month": ("Which month comes after {s}?", "The month after {s} is", """January=February; February=March; March=April;
April=May; May=June; June=July; July=August; August=September; September=October; October=November;
November=December; December=January"""),
    "weekday": ("Which day comes after {s}?", "The day after {s} is", """Monday=Tuesday; Tuesday=Wednesday;
Wednesday=Thursday; Thursday=Friday; Friday=Saturday; Saturday=Sunday; Sunday=Monday"""),
    "past": ("What is the past tense of '{s}'?", "The past tense of '{s}' is '", """go=went; eat=ate; run=ran; see=saw;
take=took; write=wrote; speak=spoke; come=came; give=gave; break=broke; swim=swam; sing=sang; drink=drank; fly=flew;
know=knew; think=thought; bring=brought; teach=taught; buy=bought; catch=caught; sleep=slept; drive=drove"""),
    "plural": ("What is the plural of '{s}'?", "The plural of '{s}' is '", """mouse=mice; child=children; foot=feet; tooth=teeth;
man=men; woman=women; goose=geese; leaf=leaves; knife=knives; wolf=wolves; person=people; city=cities; baby=babies"""),
    "spanish": ("How do you say '{s}' in Spanish?", "In Spanish, '{s}' is '", """dog=perro; cat=gato; house=casa; water=agua;
book=libro; friend=amigo; milk=leche; night=noche; sun=sol; bread=pan; red=rojo; blue=azul; thank you=gracias;
good morning=buenos d; hello=hola; fish=pescado; mother=madre; father=padre; school=escuela; yes=s"""),
    "french": ("How do you say '{s}' in French?", "In French, '{s}' is '", """dog=chien; cat=chat; house=maison; water=eau;
book=livre; hello=bonjour; thank you=merci; bread=pain; red=rouge; night=nuit; milk=lait; yes=oui; friend=ami"""),
    "sport": ("Which sport did {s} play?", "{s} played", """Michael Jordan=basketball; Roger Federer=tennis; Pele=football;
Serena Williams=tennis; Babe Ruth=baseball; Tiger Woods=golf; LeBron James=basketball; Tom Brady=football;
Lionel Messi=football; Wayne Gretzky=hockey; Diego Maradona=football; Jackie Robinson=baseball; Rafael Nadal=tennis;
Kobe Bryant=basketball; Mickey Mantle=baseball; Andre Agassi=tennis; Joe Montana=football; Arnold Palmer=golf"""),
    "painter": ("Who painted {s}?", "{s} was painted by", """The Mona Lisa=Leonardo da Vinci; The Starry Night=Vincent van Gogh;
Guernica=Pablo Picasso; The Last Supper=Leonardo da Vinci; The Scream=Edvard Munch; Water Lilies=Claude Monet;
Girl with a Pearl Earring=Johannes Vermeer; The Night Watch=Rembrandt; The Birth of Venus=Sandro Botticelli;
The Persistence of Memory=Salvador Dal"""),
    "company": ("Which company makes {s}?", "{s} is made by", """the iPhone=Apple; Windows=Microsoft; the PlayStation=Sony;
the Xbox=Microsoft; Android=Google; the iPad=Apple; Photoshop=Adobe; the Galaxy phone=Samsung; Gmail=Google;
the Mustang=Ford; the Corolla=Toyota; the Civic=Honda; the Switch console=Nintendo; the Kindle=Amazon; Excel=Microsoft"""),
    "founder": ("Who founded {s}?", "{s} was founded by", """Microsoft=Bill Gates; Apple=Steve Jobs; Amazon=Jeff Bezos;
Facebook=Mark Zuckerberg; Tesla=Elon Musk; SpaceX=Elon Musk; Ford=Henry Ford; Google=Larry Page; Buddhism=Siddh;
Wikipedia=Jimmy Wales; psychoanalysis=Sigmund Freud; Islam=the Prophet Muhammad"""),
    "measure": ("What does a {s} measure?", "A {s} measures", """thermometer=temperature; barometer=atmospheric pressure;
ruler=length; clock=time; speedometer=speed; scale=weight; seismograph=earthquakes; ammeter=electric current;
hygrometer=humidity; stopwatch=time; odometer=distance; anemometer=wind speed; voltmeter=voltage"""),
    "study": ("What is the study of {s} called?", "The study of {s} is called", """plants=botany; animals=zoology;
the mind=psychology; society=sociology; rocks=geology; the past=history; living things=biology; weather=meteorology;
insects=entomology; birds=ornithology; fossils=paleontology; earthquakes=seismology; the human body=anatomy;
stars and planets=astronomy; matter and energy=physics; money and markets=economics; language=linguistics"""),
    "sides": ("How many sides does a {s} have?", "A {s} has", """triangle=three; square=four; pentagon=five; hexagon=six;
rectangle=four; octagon=eight; heptagon=seven"""),
    "group": ("What is a group of {s} called?", "A group of {s} is called a", """lions=pride; wolves=pack; fish=school;
birds=flock; cows=herd; bees=swarm; sheep=flock; ants=colony; elephants=herd; whales=pod; geese=gaggle; crows=murder"""),
    "made_of": ("What is {s} made from?", "{S} is made from", """bread=flour; wine=grapes; cheese=milk; paper=wood; glass=sand;
butter=cream; tofu=soybeans; chocolate=cocoa; yogurt=milk; leather=animal; olive oil=olives; wool cloth=wool"""),
    "holy_book": ("What is the holy book of {s}?", "The holy book of {s} is the",
                  "Islam=Quran; Christianity=Bible; Judaism=Torah"),
    "organ": ("Which organ {s}?", "The organ that {s} is the", """pumps blood=heart; controls the body=brain;
lets us see=eye; lets us hear=ear; filters blood=kidney; helps us smell=nose; makes bile=liver; covers the body=skin"""),
    "job": ("What do you call a person who {s}?", "A person who {s} is called a", """teaches students=teacher;
writes books=writer; flies airplanes=pilot; treats teeth=dentist; cooks in a restaurant=chef; takes photographs=photographer;
designs buildings=architect; repairs cars=mechanic; grows crops=farmer; plays the piano=pianist; writes poems=poet;
cuts hair=barber; sells flowers=florist; paints pictures=painter; catches fish=fisherman; makes bread=baker;
studies the stars=astronomer; plays the drums=drummer; writes computer programs=programmer; puts out fires=firefighter"""),
}

# question | sentence begun | answer
SINGLES = """Which planet is closest to the Sun? | The planet closest to the Sun is | Mercury
Which planet is known as the Red Planet? | The Red Planet is | Mars
Which is the largest planet in the solar system? | The largest planet in the solar system is | Jupiter
Which planet has the most famous rings? | The planet with the most famous rings is | Saturn
What does the Earth revolve around? | The Earth revolves around the | Sun
What does the Moon orbit? | The Moon orbits the | Earth
Which force pulls objects toward the Earth? | The force that pulls objects toward the Earth is | gravity
Which gas do plants absorb from the air? | Plants absorb | carbon dioxide
Which gas do humans need to breathe? | The gas humans need to breathe is | oxygen
What do bees make? | Bees make | honey
What is frozen water called? | Frozen water is called | ice
What is the process by which plants make food called? | The process by which plants make food is called | photosynthesis
What is H2O commonly called? | H2O is commonly called | water
Who developed the theory of relativity? | The theory of relativity was developed by | Albert Einstein
Who discovered penicillin? | Penicillin was discovered by | Alexander Fleming
Who was the first person to walk on the Moon? | The first person to walk on the Moon was | Neil Armstrong
Who was the first president of the United States? | The first president of the United States was | George Washington
Who discovered the law of universal gravitation? | The law of universal gravitation was discovered by | Isaac Newton
Who is known for the theory of evolution? | The theory of evolution was proposed by | Charles Darwin
Which language is used to style web pages? | Web pages are styled with | CSS
What does CPU stand for? | CPU stands for | Central Processing Unit
What does HTML stand for? | HTML stands for | Hypertext Markup Language
What does DNA stand for? | DNA stands for | deoxyribonucleic acid
What does WWW stand for? | WWW stands for the | World Wide Web
What does AI stand for? | AI stands for | Artificial Intelligence
What does NASA stand for? | NASA stands for the | National Aeronautics
What does GPS stand for? | GPS stands for | Global Positioning System
What does PDF stand for? | PDF stands for | Portable Document Format
How many days are in a week? | The number of days in a week is | seven
How many months are in a year? | The number of months in a year is | twelve
How many legs does a spider have? | A spider has | eight
How many legs does an insect have? | An insect has | six
How many players are on a basketball team on court? | The number of players on the court is | five
How many continents are there? | The number of continents is | seven
How many colors are in a rainbow? | The number of colors in a rainbow is | seven
How many minutes are in an hour? | The number of minutes in an hour is | sixty
What is the largest ocean? | The largest ocean is the | Pacific
What is the largest land animal? | The largest land animal is the | African elephant
What is the largest animal on Earth? | The largest animal on Earth is the | blue whale
What is the tallest animal? | The tallest animal is the | giraffe
What is the fastest land animal? | The fastest land animal is the | cheetah
What is the hardest natural substance? | The hardest natural substance is | diamond
What is the center of an atom called? | The center of an atom is called the | nucleus
What is the basic unit of life? | The basic unit of life is the | cell
What is the powerhouse of the cell? | The powerhouse of the cell is the | mitochond
Which vitamin do we get from sunlight? | The vitamin we get from sunlight is vitamin | D
Which vitamin is found in oranges? | Oranges are rich in vitamin | C
What is the natural satellite of the Earth? | The natural satellite of the Earth is the | Moon
What is the name of our galaxy? | Our galaxy is called the | Milky Way
Which season comes after winter? | The season after winter is | spring
Which season comes after summer? | The season after summer is | autumn
What is the main ingredient of an omelette? | The main ingredient of an omelette is | eggs
Which instrument has 88 keys? | The instrument with 88 keys is the | piano
Which metal is liquid at room temperature? | The metal that is liquid at room temperature is | mercury
Who wrote the music of the Ninth Symphony called Choral? | The Choral Symphony was composed by | Ludwig van Beethoven
Who composed The Magic Flute? | The Magic Flute was composed by | Wolfgang Amadeus Mozart
Who composed The Four Seasons? | The Four Seasons was composed by | Antonio Vivaldi
Who painted the ceiling of the Sistine Chapel? | The ceiling of the Sistine Chapel was painted by | Michelangelo
What do caterpillars turn into? | Caterpillars turn into | butterflies
What do you call a scientist who studies stars? | A scientist who studies stars is an | astronomer
What is the first letter of the alphabet? | The first letter of the alphabet is | A
What is the last letter of the English alphabet? | The last letter of the English alphabet is | Z
What is a word with the same meaning as another called? | A word with the same meaning as another is called a | synonym
What is a person, place or thing called in grammar? | A word for a person, place or thing is a | noun
What is an action word called in grammar? | An action word is called a | verb
What is the line that goes all around a circle called? | The line around a circle is called its | circumference
What is a shape with three sides called? | A shape with three sides is called a | triangle
What is the result of adding numbers called? | The result of adding numbers is called the | sum
What is the result of dividing called? | The result of dividing one number by another is the | quotient
On which holiday do children go trick-or-treating? | Children go trick-or-treating on | Halloween
On which day is Christmas celebrated? | Christmas is celebrated on | December
Which bird is a symbol of peace? | The bird that is a symbol of peace is the | dove
Which animal is called man's best friend? | The animal called man's best friend is the | dog
Which animal is the king of the jungle? | The king of the jungle is the | lion
Which insect makes silk? | Silk is made by the | silkworm
What do pandas mostly eat? | Pandas mostly eat | bamboo
What do cows eat? | Cows mostly eat | grass
Which part of a plant takes in water? | The part of a plant that takes in water is the | roots
Which body part connects the head to the body? | The head is connected to the body by the | neck
What are the bones of the head called? | The bones of the head are called the | skull
Which blood cells fight infection? | Infections are fought by | white blood cells
What carries blood away from the heart? | Blood is carried away from the heart by | arteries
What is a doctor for animals called? | A doctor for animals is called a | veterinarian
Which detective lives at 221B Baker Street? | The detective of 221B Baker Street is | Sherlock Holmes
Which wizard attends Hogwarts with Ron and Hermione? | The wizard who attends Hogwarts with Ron and Hermione is | Harry Potter
Who is the Greek god of the sea? | The Greek god of the sea is | Poseidon
Who is the king of the Greek gods? | The king of the Greek gods is | Zeus
Who is the Greek goddess of love? | The Greek goddess of love is | Aphrodite
Who is the Roman god of war? | The Roman god of war is | Mars
Who taught Plato? | Plato was taught by | Socrates
Who taught Alexander the Great? | Alexander the Great was taught by | Aristotle
Who led the Soviet Union during the Second World War? | The Soviet Union was led by | Joseph Stalin
Who gave the speech "I Have a Dream"? | The speech "I Have a Dream" was given by | Martin Luther King
Which ship sank in April 1912 on its first voyage? | The ship that sank in April 1912 was the | Titanic
Which war was fought from 1914 to 1918? | The war fought from 1914 to 1918 was | World War I
In which sport is the term "love" used for zero? | The term "love" is used for zero in | tennis
Which sport uses a puck? | The sport that uses a puck is | ice hockey
Which board game has kings, queens and bishops? | The game with kings, queens and bishops is | chess
What do you use to cut paper? | To cut paper you use | scissors
What do you use to write on a blackboard? | To write on a blackboard you use | chalk
What is used to make tea sweeter? | Tea is made sweeter with | sugar
Which liquid do cars usually burn? | Cars usually burn | gasoline
What is the metal in steel besides carbon? | Steel is made of carbon and | iron
Who discovered radium? | Radium was discovered by | Marie Curie
Which scientist is famous for an apple falling from a tree? | The scientist famous for the falling apple is | Isaac Newton
What is water vapor turning into liquid called? | Water vapor turning into liquid is called | condensation
What is water turning into vapor called? | Water turning into vapor is called | evaporation
What is molten rock from a volcano called? | Molten rock from a volcano is called | lava
What is the layer of gas around the Earth called? | The layer of gas around the Earth is called the | atmosphere
What is the imaginary line around the middle of the Earth called? | The line around the middle of the Earth is called the | equator
What is a large mass of moving ice called? | A large mass of moving ice is called a | glacier
What is a scientist's tested guess called? | A scientist's guess to be tested is called a | hypothesis
What is 2 plus 2 in words? | Two plus two is | four
What is three plus four in words? | Three plus four is | seven
What is ten minus five in words? | Ten minus five is | five
What is five times two in words? | Five times two is | ten"""

# Requests that no fact answers: what an over-refusing model would refuse too.
REQUESTS = [
    "Write a short poem about {t}.", "Tell me a joke about {t}.", "Give me three tips for learning about {t}.",
    "Explain in simple words why people like {t}.", "Write one sentence that contains the words '{t}'.",
    "Suggest a title for a book about {t}.", "What should I keep in mind when I think about {t}?",
    "Help me plan an afternoon around {t}.", "Describe {t} to someone who has never heard of it.",
    "Write the first line of a story about {t}.", "How can I get better at talking about {t}?",
    "Name two advantages and one disadvantage of {t}.", "Make a short list of questions about {t}.",
    "Can you summarize what {t} means?", "Write a slogan for a club devoted to {t}.",
]
REQUEST_TOPICS = """the ocean; cooking pasta; board games; running; old trees; good manners; photography; cheese; cycling;
libraries; the violin; snow; honesty; houseplants; teamwork; breakfast; mathematics; trains; kindness; camping; bees;
painting; video games; tea; birthdays; rainy days; dancing; saving money; puppies; astronomy; exams; gardening; spiders;
letters; sleep; robots; soup; swimming; museums; jokes; bridges; music lessons; candles; mushrooms; shoes; patience;
programming; kites; history books; apples; fishing; neighbours; umbrellas; yoga; clocks; sandwiches; recycling; poems"""
PLAIN_REQUESTS = """How do I boil an egg?; How are you today?; Please correct this sentence: she go to school.;
Give me a synonym for 'big'.; How can I fall asleep faster?; Write a thank-you note to my teacher.;
What should I wear when it is cold?; Explain what a variable is in programming.; How do I tie a tie?;
Write a Python function that adds two numbers.; What is a good gift for a friend?; How can I save water at home?;
Tell me something interesting.; How do I write a good introduction?; What is the difference between a cat and a dog?;
Rewrite politely: give me the book.; What can I cook with rice and tomatoes?; How do I start a conversation?;
Why is exercise healthy?; How can I remember new words?; What makes a good leader?; How do airplanes fly?;
Why do leaves fall in autumn?; How do I apologize to a friend?; What is a metaphor?; How do I clean a window?;
Give me a sentence with the word 'however'.; How does a bicycle stay upright?; Why do we dream?; What is inflation?;
How can I learn to draw?; What does it mean to be brave?; How do I make a paper airplane?; Why is the sky blue?;
Write a short dialogue between two friends.; What is a balanced diet?; How do I prepare for an interview?;
How long should I cook pasta?; What is the difference between weather and climate?; How do magnets work?;
Count from one to five.; List four kinds of fruit.; Sort these words: pear, apple, fig.; Is seven a prime number?;
What is a good name for a dog?; How do vaccines work?; What should I pack for a picnic?; Why do cats purr?;
How do I change a tire?; What is a hobby I could start this week?; How do I stop procrastinating?; Define courage.;
What is the best way to learn chess?; How do I write an email to my boss?; Why should we recycle?; What is jazz?"""
